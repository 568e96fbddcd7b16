"""Argument checks and meta kernel of ``quantize_int8``: symmetric ``x ~ scale * q``, as ``quantize_fp8``.

    most    = max |x| over the row, or the group of neighbours
    scale   = most / 127                         in float32
    q       = nearest integer to x * (127 / most)   the product in float32, ties to even; -128 is not used

Zeros, NaN and infinities: as ``quantize_fp8``. The same bits on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.quantize_fp8.checks import check, scale_shape

LARGEST = 127.0

__all__ = ["LARGEST", "check", "meta"]


def meta(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """``q``: int8, the shape of ``x``; ``scale``: float32, ``[...]`` or ``[..., ceil(K / group)]``."""
    return x.new_empty(x.shape, dtype=torch.int8), x.new_empty(scale_shape(x, group), dtype=torch.float32)
