"""The e4m3 product in Triton: ``matmul``'s tiles, with scales.

Scales per row are put in when a tile is finished: that is free. Scales per block are put in after every 128 of K, on the CUDA
cores, which promotes the sum to float32 at the same time: 128 x 128 accumulators take an addition and a product each for 128
tensor-core products, predicted at 70-80 % of the plain rate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.gpu.tuning import Config
from octavo.kernels.matmul.shapes import COMPILED
from octavo.kernels.matmul.tiles import BLOCK_SCALES, ROW_SCALES, Product, candidates, config_for
from octavo.kernels.matmul.triton import ahead, launch


def fp8_gemm(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[N, K]`` -> ``[M, N]`` of ``dtype`` (bfloat16)."""
    product = _product_of(a, b, a_scale, b_scale, dtype)
    return launch(product, config_for("fp8_gemm", product))


def configs(
    a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None
) -> tuple[Config, ...]:
    """What a tuner tries."""
    return candidates(_product_of(a, b, a_scale, b_scale, dtype))


def _product_of(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> Product:
    scales = ROW_SCALES if a_scale.dim() == 1 else BLOCK_SCALES
    return Product(a, b, dtype or torch.bfloat16, True, a_scale, b_scale, scales)


AHEAD = tuple(
    entry
    for scales in (ROW_SCALES, BLOCK_SCALES)
    for element, architecture in (("fp8e4nv", 90), ("u8", 80))
    for entry in ahead(element, "bf16", COMPILED, True, scales, (architecture,))
)
