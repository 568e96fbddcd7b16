"""``group_gemm`` by torch: one product per expert. On a GPU it synchronises on ``offsets``: a fallback there."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor


def group_gemm(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """``a``: ``[T, K]``, ``b``: ``[E, N, K]`` -> ``[T, N]``."""
    out = a.new_zeros((a.shape[0], b.shape[1]))
    for weight, (begin, end) in zip(b, pairwise(offsets.clamp(0, a.shape[0]).tolist()), strict=True):
        if begin < end:
            out[begin:end] = a[begin:end] @ weight.T
    return out
