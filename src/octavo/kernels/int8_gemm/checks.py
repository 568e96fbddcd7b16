"""Argument checks and meta kernel of ``int8_gemm``: int8 product, summed exactly in int32, scaled once; ``b`` is ``[N, K]``.

    out[m, n] = a_scale[m] * b_scale[n] * sum_k a[m, k] * b[n, k]

``a`` and ``a_scale`` are what ``quantize_int8(x)`` gives for tokens, ``b`` and ``b_scale`` for a weight's outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_output, expect_same, expect_shape, expect_tensor, expect_value

LONGEST = (1 << 31) // (128 * 128) - 1  # of K: beyond, a sum of products of -128 does not fit in 32 bits


def check(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> None:
    """``a``: int8 ``[M, K]``, ``b``: int8 ``[N, K]``, K at most 131,071; scales float32 ``[M]`` and ``[N]``; ``dtype``: of the
    result, bfloat16 by default."""
    expect_tensor("a", a, (torch.int8,))
    expect_tensor("b", b, (torch.int8,))
    expect_value("a", a.dim() == 2, f"shape {list(a.shape)}", "[M, K]")
    expect_value("a", a.shape[1] <= LONGEST, f"K = {a.shape[1]}", f"at most {LONGEST}, whose sums fit in 32 bits")
    expect_shape("b", b, (None, a.shape[1]), "[N, K] with the K of a")
    for name, scale, rows in (("a_scale", a_scale, a.shape[0]), ("b_scale", b_scale, b.shape[0])):
        expect_tensor(name, scale, (torch.float32,))
        expect_shape(name, scale, (rows,), f"one for each row of {name[0]}")
    for name, other in (("b", b), ("a_scale", a_scale), ("b_scale", b_scale)):
        expect_same(name, other, "a", a, dtype=False)
    expect_output(dtype)


def meta(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``[M, N]`` of ``dtype``."""
    return a.new_empty((a.shape[0], b.shape[0]), dtype=dtype or torch.bfloat16)
