"""Quantisation with torch's own operations, in float32: the same bits as every other back end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.quantize_fp8.checks import DTYPE, LARGEST, SMALLEST_GROUP, scale_shape


def scaled(x: Tensor, group: int, largest: float) -> tuple[Tensor, Tensor]:
    """``x`` ``[..., K]`` -> float32 values in ``[-largest, largest]`` not yet rounded, and their scales."""
    size, shape = x.shape[-1], scale_shape(x, group)
    group = group or size
    groups = F.pad(x.float(), (0, -size % group)).view(*x.shape[:-1], -(-size // group), group)
    most = groups.abs().amax(-1, keepdim=True)
    usable = (most >= SMALLEST_GROUP) & most.isfinite()
    limit = torch.full_like(most, largest)  # a tensor: torch turns some divisions with a number into products
    values = torch.where(usable, groups * (limit / most), 0.0).clamp_(-largest, largest)
    scale = torch.where(usable, most / limit, torch.where(most < SMALLEST_GROUP, 0.0, torch.nan))
    return values.flatten(-2)[..., :size], scale.view(shape)


def quantize_fp8(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """``x``: ``[..., K]`` -> ``q`` e4m3 of its shape, ``scale`` float32 ``[...]`` or ``[..., ceil(K / group)]``."""
    values, scale = scaled(x, group, LARGEST)
    return values.to(DTYPE, memory_format=torch.contiguous_format), scale
