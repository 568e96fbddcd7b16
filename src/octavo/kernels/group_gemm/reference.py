"""Float64 reference of ``group_gemm``: each expert's rows times its weight."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def group_gemm_reference(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """``a``: ``[T, K]``, ``b``: ``[E, N, K]``, ``offsets``: ``[E + 1]`` -> float64 ``[T, N]``."""
    out = torch.zeros((a.shape[0], b.shape[1]), dtype=torch.float64)
    for weight, (begin, end) in zip(b, pairwise(offsets.clamp(0, a.shape[0]).tolist()), strict=True):
        out[begin:end] = a[begin:end].double() @ weight.double().T
    return out
