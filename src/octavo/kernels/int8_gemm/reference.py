"""Float64 reference of ``int8_gemm``: sums of int8 products are exact there."""

from __future__ import annotations

import torch
from torch import Tensor


def int8_gemm_reference(
    a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[N, K]`` -> float64 ``[M, N]``."""
    return (a.double() @ b.double().T) * a_scale.double()[:, None] * b_scale.double()
