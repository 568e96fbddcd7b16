"""Rotary angles of a step's rows: cos and sin for the operations, and in the layout of torch's own operations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RotaryAngles(NamedTuple):
    """Both float32 ``[T, D/2]``, as ``rotary`` and ``rotary_write_kv`` take them."""

    cos: Tensor
    sin: Tensor

    @staticmethod
    def at(positions: Tensor, inv_freq: Tensor) -> RotaryAngles:
        """``positions``: int64 ``[T]``, ``inv_freq``: float32 ``[D/2]``. Computed for the step's rows, in float32 as the
        models were trained: cheaper than keeping a table of the whole context."""
        angles = positions.to(inv_freq.dtype).unsqueeze(1) * inv_freq
        return RotaryAngles(angles.cos(), angles.sin())


class WideAngles(NamedTuple):
    """Both ``[T, 1, D]``; ``sin`` is negated in its first half, so that ``out = x cos + swap_halves(x) sin``."""

    cos: Tensor
    sin: Tensor

    @staticmethod
    def of(angles: RotaryAngles, dtype: torch.dtype) -> WideAngles:
        """In the dtype of the rows to rotate."""
        cos, sin = angles
        return WideAngles(
            torch.cat((cos, cos), 1).unsqueeze(1).to(dtype), torch.cat((-sin, sin), 1).unsqueeze(1).to(dtype)
        )
