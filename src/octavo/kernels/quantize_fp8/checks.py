"""Argument checks and meta kernel of ``quantize_fp8``: ``x ~ scale * q``, one e4m3 scale per row or group.

    most    = max |x| over the group
    scale   = most / 448           in float32
    q       = e4m3(x * (448 / most))   the product in float32, then the nearest of e4m3's numbers, ties to even

A group whose largest is below 1e-30 (zeros, above all) counts as zeros: ``q = 0, scale = 0``. A group with a NaN or an infinity
gets ``q = 0, scale = NaN``, so that it shows in every result that depends on it. The same bits on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_tensor, expect_value

DTYPE = torch.float8_e4m3fn
LARGEST = 448.0
SMALLEST_GROUP = 1e-30
GROUPS = (0, 32, 64, 128, 256)


def check(x: Tensor, group: int = 0) -> None:
    """``x``: ``[..., K]``, contiguous, K > 0; ``group``: 0 for one scale a row, or 32, 64, 128, 256 neighbours to a scale."""
    expect_tensor("x", x)
    expect_value("x", x.dim() >= 1 and x.shape[-1] > 0, f"shape {list(x.shape)}", "[..., K] with K > 0")
    expect_value("group", group in GROUPS, group, f"one of {', '.join(map(str, GROUPS))}")


def scale_shape(x: Tensor, group: int) -> list[int]:
    """``[...]`` for one scale a row, ``[..., ceil(K / group)]`` for groups (the last one may be shorter)."""
    return [*x.shape[:-1], *([-(-x.shape[-1] // group)] if group else [])]


def meta(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """``q``: e4m3, the shape of ``x``; ``scale``: float32, ``[...]`` or ``[..., ceil(K / group)]``."""
    return x.new_empty(x.shape, dtype=DTYPE), x.new_empty(scale_shape(x, group), dtype=torch.float32)
