"""The e4m3 product with torch's own operations: both matrices as float32, multiplied."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.fp8_gemm.checks import BLOCK
from octavo.kernels.fp8_gemm.reference import dequantize


def fp8_gemm(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[N, K]`` -> ``[M, N]`` of ``dtype`` (bfloat16)."""
    product = dequantize(a, a_scale) @ dequantize(b, b_scale, BLOCK).T
    return product.to(dtype or torch.bfloat16)
