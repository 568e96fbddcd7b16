"""Argument checks and meta kernel of ``softmax``: ``exp(x - max(x)) / sum(exp(x - max(x)))`` over the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_tensor, expect_value


def check(x: Tensor) -> None:
    """``x``: ``[..., N]``, contiguous, N > 0."""
    expect_tensor("x", x)
    expect_value("x", x.dim() >= 1 and x.shape[-1] > 0, f"shape {list(x.shape)}", "[..., N] with N > 0")


def meta(x: Tensor) -> Tensor:
    """Shape and dtype of ``x``."""
    return torch.empty_like(x)
