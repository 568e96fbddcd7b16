"""Float64 reference of ``rms_norm``: ``x / sqrt(mean(x^2) + eps) * w``; gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """``x``: ``[..., N]``, ``weight`` broadcasts against it -> float64 ``[..., N]``."""
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def add_rms_norm_reference(x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The normalised sum, and the sum."""
    summed = x.double() + residual.double()
    return rms_norm_reference(summed, weight, eps), summed


def rms_norm_backward_reference(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-6, grad_sum: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients by ``x`` and by ``weight`` of ``sum(grad * rms_norm(x)) + sum(grad_sum * x)``."""
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    grad_x, grad_weight = torch.autograd.grad(rms_norm_reference(x, weight, eps), (x, weight), grad.double())
    return grad_x if grad_sum is None else grad_x + grad_sum.double(), grad_weight
