"""Argument checks and meta kernel of ``group_gemm``: rows sorted by expert, a weight per expert.

    out[t] = a[t] @ b[e].T    for offsets[e] <= t < offsets[e + 1],   0 for t >= offsets[E]

``offsets`` stays on the device: how many rows an expert has is never read back. It begins with 0 and never falls; entries
beyond T count as T. Experts may have no rows, and one may have all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value


def check(a: Tensor, b: Tensor, offsets: Tensor) -> None:
    """``a``: ``[T, K]``, ``b``: ``[E, N, K]``, of one dtype (float32, bfloat16, float16); ``offsets``: int32 ``[E + 1]``."""
    expect_tensor("a", a)
    expect_tensor("b", b)
    expect_tensor("offsets", offsets, (torch.int32,))
    expect_value("a", a.dim() == 2, f"shape {list(a.shape)}", "[T, K]")
    expect_same("b", b, "a", a)
    expect_same("offsets", offsets, "a", a, dtype=False)
    expect_shape("b", b, (None, None, a.shape[1]), "[E, N, K] with the K of a")
    expect_value("b", b.shape[0] > 0, "no expert", "at least one")
    expect_shape("offsets", offsets, (b.shape[0] + 1,), "one for each expert, and the end")


def meta(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """``[T, N]`` of ``a``'s dtype."""
    return a.new_empty((a.shape[0], b.shape[1]))
