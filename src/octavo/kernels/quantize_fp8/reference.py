"""Float64 reference of ``quantize_fp8``: rounded to float32 where the definition says so."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.quantize_fp8.checks import LARGEST, SMALLEST_GROUP


def quantize_reference(x: Tensor, group: int, largest: float) -> tuple[Tensor, Tensor]:
    """``x`` ``[..., K]`` -> scaled values before they are rounded, ``scale`` ``[..., groups]`` (``[...]`` if ``group`` is 0)."""
    size = x.shape[-1]
    group = group or size
    groups = F.pad(x.double(), (0, -size % group)).view(*x.shape[:-1], -(-size // group), group)
    most = groups.abs().amax(-1, keepdim=True)
    usable = (most >= SMALLEST_GROUP) & most.isfinite()
    inverse = torch.where(usable, (largest / most).float().double(), 0.0)
    values = torch.where(usable, (groups * inverse).float(), 0.0)
    scale = torch.where(usable, most / largest, torch.where(most < SMALLEST_GROUP, 0.0, torch.nan)).float()
    return values.flatten(-2)[..., :size], scale.squeeze(-1)


def quantize_fp8_reference(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """``x``: ``[..., K]`` -> ``q`` e4m3 of its shape, ``scale`` float32."""
    values, scale = quantize_reference(x, group, LARGEST)
    return values.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale if group else scale.squeeze(-1)
