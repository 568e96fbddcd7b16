"""Quantisation to int8 in Triton: ``quantize_fp8``'s kernel with other numbers to round to."""

from __future__ import annotations

from torch import Tensor

from octavo.kernels.quantize_fp8.triton import ahead, launch
from octavo.kernels.quantize_int8.checks import LARGEST, meta

AHEAD = ahead("i8", LARGEST, (80, 90))


def quantize_int8(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """``x``: ``[..., K]`` -> ``q`` int8 of its shape, ``scale`` float32 ``[...]`` or ``[..., ceil(K / group)]``."""
    q, scale = meta(x, group)
    launch(x, group, q, scale, LARGEST)
    return q, scale
