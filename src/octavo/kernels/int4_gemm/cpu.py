"""The 4-bit product with torch's own operations: the weight dequantised in float32, rounded to the dtype of ``x``."""

from __future__ import annotations

from torch import Tensor

from octavo.kernels.int4_gemm.checks import dequantize


def int4_gemm(x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, group: int) -> Tensor:
    """``x``: ``[M, K]`` -> ``[M, N]`` of its dtype."""
    return x @ dequantize(packed, scale.float(), minimum.float(), x.shape[1], group).to(x.dtype).T
