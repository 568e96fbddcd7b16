"""Float64 reference of ``fp8_gemm``: both matrices with their scales applied, multiplied."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.fp8_gemm.checks import BLOCK


def dequantize(x: Tensor, scale: Tensor, rows_per_scale: int = 1) -> Tensor:
    """``x`` ``[R, K]`` times its scales, ``[R]`` or ``[ceil(R / rows_per_scale), ceil(K / 128)]``, in their dtype."""
    if scale.dim() == 1:
        return x.to(scale.dtype) * scale[:, None]
    wide = scale.repeat_interleave(rows_per_scale, 0).repeat_interleave(BLOCK, 1)
    return x.to(scale.dtype) * wide[: x.shape[0], : x.shape[1]]


def fp8_gemm_reference(
    a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[N, K]`` -> float64 ``[M, N]``."""
    return dequantize(a, a_scale.double()) @ dequantize(b, b_scale.double(), BLOCK).T
