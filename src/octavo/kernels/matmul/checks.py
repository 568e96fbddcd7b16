"""Argument checks and meta kernel of ``matmul``: ``a @ b``, summed in float32 and rounded once to the inputs' dtype."""

from __future__ import annotations

from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value


def check(a: Tensor, b: Tensor) -> None:
    """``a``: ``[M, K]``, ``b``: ``[K, N]``, both contiguous, of one dtype (float32, bfloat16, float16), on one device."""
    expect_tensor("a", a)
    expect_tensor("b", b)
    expect_value("a", a.dim() == 2, f"shape {list(a.shape)}", "[M, K]")
    expect_same("b", b, "a", a)
    expect_shape("b", b, (a.shape[1], None), "[K, N] with the K of a")
    for name, value in (("a", a), ("b", b)):
        expect_value(name, max(value.shape) < 1 << 31, f"shape {list(value.shape)}", "sizes below 2^31")


def meta(a: Tensor, b: Tensor) -> Tensor:
    """``[M, N]`` of ``a``'s dtype."""
    return a.new_empty((a.shape[0], b.shape[1]))
