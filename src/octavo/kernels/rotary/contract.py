"""Rotary position embedding: pairs ``(x[d], x[d + D/2])`` turn by the angle ``position * inv_freq[d]``.

out[d]       = x[d] cos_d - x[d + D/2] sin_d
out[d + D/2] = x[d + D/2] cos_d + x[d] sin_d
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RotaryAngles:
    """Both ``[T, 1, D]``; ``sin`` is negated in its first half, so that ``out = x cos + swap_halves(x) sin``."""

    cos: Tensor
    sin: Tensor

    @staticmethod
    def at(positions: Tensor, inv_freq: Tensor, dtype: torch.dtype) -> RotaryAngles:
        """``positions``: int64 ``[T]``, ``inv_freq``: float32 ``[D/2]``. Computed for the step's rows, in float32 as the
        models were trained: cheaper than keeping a table of the whole context."""
        angles = positions.to(inv_freq.dtype).unsqueeze(1) * inv_freq
        cos, sin = angles.cos(), angles.sin()
        return RotaryAngles(
            torch.cat((cos, cos), 1).unsqueeze(1).to(dtype), torch.cat((-sin, sin), 1).unsqueeze(1).to(dtype)
        )
