"""Argument checks and meta kernel of ``vector_add``: ``a + b``, in float32 and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor


def check(a: Tensor, b: Tensor) -> None:
    """``a`` and ``b``: of one shape, dtype (float32, float16, bfloat16) and device, contiguous."""
    expect_tensor("a", a)
    expect_tensor("b", b)
    expect_same("b", b, "a", a)
    expect_shape("b", b, a.shape, "the shape of a")


def meta(a: Tensor, b: Tensor) -> Tensor:
    """Shape and dtype of ``a``."""
    return torch.empty_like(a)
