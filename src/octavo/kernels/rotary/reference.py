"""What is the right answer? Each pair turned on its own, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotary_reference(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """``x``: ``[T, H, D]``, ``positions``: ``[T]``, ``inv_freq``: ``[D/2]`` -> float64 ``[T, H, D]``."""
    out, half = torch.empty(x.shape, dtype=torch.float64), x.shape[2] // 2
    for row, position in enumerate(positions.tolist()):
        for d, frequency in enumerate(inv_freq.double().tolist()):
            cos, sin = math.cos(position * frequency), math.sin(position * frequency)
            low, high = x[row, :, d].double(), x[row, :, d + half].double()
            out[row, :, d], out[row, :, d + half] = low * cos - high * sin, high * cos + low * sin
    return out
