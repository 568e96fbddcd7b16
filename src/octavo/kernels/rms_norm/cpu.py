"""RMSNorm with torch's own operations, float32 inside."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """``x``: ``[..., N]``; ``weight``: ``[N]``, or ``[H, N]`` for one weight per head -> shape and dtype of ``x``."""
    if weight.dim() == 1:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x, x.shape[-1:], None, eps).mul_(weight)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """The normalised sum, and the sum."""
    summed = x + residual
    return rms_norm(summed, weight, eps), summed


def rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-6, grad_sum: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Like ``x`` and like ``weight``: the formulas of ``checks.py``."""
    inverse = (x.float().square().mean(-1, keepdim=True) + eps).rsqrt()
    normalised, weighted = x.float() * inverse, grad.float() * weight.float()
    grad_x = inverse * (weighted - normalised * (weighted * normalised).mean(-1, keepdim=True))
    if grad_sum is not None:
        grad_x += grad_sum
    grad_weight = (grad.float() * normalised).reshape(-1, *weight.shape).sum(0)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)
