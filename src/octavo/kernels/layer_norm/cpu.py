"""LayerNorm with torch's own operations, float32 inside."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """``x``: ``[..., N]``; ``weight``, ``bias``: ``[N]`` -> shape and dtype of ``x``."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """The normalised sum, and the sum."""
    summed = x + residual
    return layer_norm(summed, weight, bias, eps), summed


def layer_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5, grad_sum: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Like ``x``, like ``weight`` and like the bias: the formulas of ``checks.py``."""
    size = x.shape[-1]
    centered = x.float() - x.float().mean(-1, keepdim=True)
    inverse = (centered.square().mean(-1, keepdim=True) + eps).rsqrt()
    normalised, weighted = centered * inverse, grad.float() * weight.float()
    grad_x = weighted - weighted.mean(-1, keepdim=True) - normalised * (weighted * normalised).mean(-1, keepdim=True)
    grad_x *= inverse
    if grad_sum is not None:
        grad_x += grad_sum
    grad_weight = (grad.float() * normalised).view(-1, size).sum(0)
    grad_bias = grad.float().view(-1, size).sum(0)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)
