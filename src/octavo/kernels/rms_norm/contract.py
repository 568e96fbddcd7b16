"""RMSNorm (Zhang and Sennrich, 2019): ``out = x / sqrt(mean(x^2) + eps) * weight``, the mean over the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value


def check(x: Tensor, weight: Tensor, eps: float = 1e-6) -> None:
    """``x``: ``[..., N]``, its rows dense; ``weight``: ``[N]``, or ``[H, N]`` for one weight per head, of ``x``'s dtype."""
    expect_tensor("x", x)
    expect_tensor("weight", weight)
    expect_value("x", x.dim() >= 1 and x.shape[-1] > 0, f"shape {list(x.shape)}", "[..., N] with N > 0")
    expect_same("weight", weight, "x", x)
    expect_value("weight", weight.dim() in (1, 2), f"{weight.dim()} dimensions", "[N] or [H, N]")
    expect_shape("weight", weight, x.shape[x.dim() - weight.dim() :], "the last dimensions of x")
    expect_value("eps", eps >= 0, eps, "a number that is not negative")


def fake(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Shape and dtype of ``x``."""
    return torch.empty_like(x)
