"""Rotary embedding with torch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.rotary.contract import RotaryAngles


def rotary(x: Tensor, angles: RotaryAngles) -> Tensor:
    """``x``: ``[T, H, D]`` -> a new tensor of the same shape and dtype."""
    low, high = x.chunk(2, -1)
    return torch.addcmul(x * angles.cos, torch.cat((high, low), -1), angles.sin)
