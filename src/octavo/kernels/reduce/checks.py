"""Argument checks and meta kernel of ``reduce``: sum of all elements or of the last dimension, in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_tensor, expect_value


def check(x: Tensor, last: bool = False) -> None:
    """``x``: float32, float16 or bfloat16 of any shape, contiguous; ``last``: sum each row, not everything."""
    expect_tensor("x", x)
    expect_value("x", x.dim() >= 1 or not last, "no dimensions", "[..., N], as last=True")


def meta(x: Tensor, last: bool = False) -> Tensor:
    """float32: of no dimensions, or of ``x``'s shape without the last."""
    return x.new_empty(x.shape[:-1] if last else (), dtype=torch.float32)
