"""The int8 product in Triton: ``matmul``'s tiles with int32 sums; the scales are put in when a tile is finished."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.gpu.tuning import Config
from octavo.kernels.matmul.shapes import COMPILED
from octavo.kernels.matmul.tiles import ROW_SCALES, Product, candidates, config_for
from octavo.kernels.matmul.triton import ahead, launch


def int8_gemm(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[N, K]`` -> ``[M, N]`` of ``dtype`` (bfloat16)."""
    product = _product_of(a, b, a_scale, b_scale, dtype)
    return launch(product, config_for("int8_gemm", product))


def configs(
    a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None
) -> tuple[Config, ...]:
    """What a tuner tries."""
    return candidates(_product_of(a, b, a_scale, b_scale, dtype))


def _product_of(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> Product:
    return Product(a, b, dtype or torch.bfloat16, True, a_scale, b_scale, ROW_SCALES)


AHEAD = ahead("i8", "bf16", COMPILED, True, ROW_SCALES)
