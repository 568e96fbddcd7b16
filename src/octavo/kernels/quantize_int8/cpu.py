"""Quantisation to int8 with torch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.quantize_fp8.cpu import scaled
from octavo.kernels.quantize_int8.checks import LARGEST


def quantize_int8(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """``x``: ``[..., K]`` -> ``q`` int8 of its shape, ``scale`` float32 ``[...]`` or ``[..., ceil(K / group)]``."""
    values, scale = scaled(x, group, LARGEST)
    return values.round().to(torch.int8, memory_format=torch.contiguous_format), scale
