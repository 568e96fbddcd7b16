"""Argument checks and meta kernel of ``linear``: ``x W^T + b``."""

from __future__ import annotations

from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor


def check(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """``x``: ``[T, K]``, any strides; ``weight``: ``[N, K]``; ``bias``: ``[N]``; all of one dtype."""
    expect_tensor("x", x, contiguous=False)
    expect_tensor("weight", weight)
    expect_shape("x", x, (None, None), "[T, K]")
    expect_shape("weight", weight, (None, x.shape[1]), "[N, K], K as x has it")
    expect_same("weight", weight, "x", x)
    if bias is not None:
        expect_tensor("bias", bias)
        expect_shape("bias", bias, weight.shape[:1], "[N], as many as weight has rows")
        expect_same("bias", bias, "x", x)


def meta(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``[T, N]``."""
    return x.new_empty(x.shape[0], weight.shape[0])
