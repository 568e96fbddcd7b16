"""Float64 reference of ``layer_norm``: ``(x - mean) / sqrt(var + eps) * w + b``; gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """``x``: ``[..., N]``, ``weight`` and ``bias``: ``[N]`` -> float64 ``[..., N]``."""
    centered = x.double() - x.double().mean(-1, keepdim=True)
    out = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    return out if bias is None else out + bias.double()


def add_layer_norm_reference(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """The normalised sum, and the sum."""
    summed = x.double() + residual.double()
    return layer_norm_reference(summed, weight, bias, eps), summed


def layer_norm_backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5, grad_sum: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by ``x``, ``weight`` and the bias of ``sum(grad * layer_norm(x)) + sum(grad_sum * x)``."""
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    bias = torch.zeros_like(weight, requires_grad=True)
    out = layer_norm_reference(x, weight, bias, eps)
    grad_x, grad_weight, grad_bias = torch.autograd.grad(out, (x, weight, bias), grad.double())
    return grad_x if grad_sum is None else grad_x + grad_sum.double(), grad_weight, grad_bias
