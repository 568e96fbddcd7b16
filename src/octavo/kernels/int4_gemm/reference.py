"""Float64 reference of ``int4_gemm``: the dequantised weight, and the product."""

from __future__ import annotations

from torch import Tensor

from octavo.kernels.int4_gemm.checks import dequantize


def int4_gemm_reference(x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, group: int) -> Tensor:
    """``x``: ``[M, K]`` -> float64 ``[M, N]``."""
    return x.double() @ dequantize(packed, scale.double(), minimum.double(), x.shape[1], group).T
