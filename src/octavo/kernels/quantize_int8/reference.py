"""Float64 reference of ``quantize_int8``: rounded to float32 where the definition says so."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.quantize_fp8.reference import quantize_reference
from octavo.kernels.quantize_int8.checks import LARGEST


def quantize_int8_reference(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """``x``: ``[..., K]`` -> ``q`` int8 of its shape, ``scale`` float32."""
    values, scale = quantize_reference(x, group, LARGEST)
    return values.round().clamp(-LARGEST, LARGEST).to(torch.int8), scale if group else scale.squeeze(-1)
