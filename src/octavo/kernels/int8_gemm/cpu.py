"""``int8_gemm`` by torch in float64, where its sums are exact; no integer product is as widely supported."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.int8_gemm.reference import int8_gemm_reference


def int8_gemm(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[N, K]`` -> ``[M, N]`` of ``dtype`` (bfloat16)."""
    return int8_gemm_reference(a, b, a_scale, b_scale).to(dtype or torch.bfloat16)
