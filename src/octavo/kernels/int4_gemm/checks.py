"""Argument checks and meta kernel of ``int4_gemm``: unsigned 4-bit weights, a scale and a minimum per group along K.

    w[n, k]   = scale[n, k // group] * q[n, k] + minimum[n, k // group],   q in 0..15
    out[m, n] = sum_k x[m, k] * w[n, k]

A zero point ``z`` is ``minimum = -z * scale``: GGUF's Q4_0 has ``minimum = -8 * scale``, its Q4_1 has a minimum of its own, both
with groups of 32. Scales and minima are bfloat16, float16 or float32.

``packed`` holds a row per output, and in it 16 bytes for each 32 of K: byte ``j`` has element ``j`` in its low nibble and element
``j + 16`` in its high nibble, the order of GGUF's blocks. The last group is filled up with anything (``pack`` takes zeros).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.arguments import FLOATS, expect_same, expect_shape, expect_tensor, expect_value

GROUPS = (32, 64, 128)
HALF = 16  # elements between a byte's low nibble and its high one


def check(x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, group: int) -> None:
    """``x``: ``[M, K]`` bfloat16 or float16; ``packed``: uint8 ``[N, groups * group / 2]``; ``scale`` and ``minimum``:
    ``[N, groups]`` of one dtype, with ``groups = ceil(K / group)`` and ``group`` 32, 64 or 128."""
    expect_tensor("x", x, (torch.bfloat16, torch.float16))
    expect_tensor("packed", packed, (torch.uint8,))
    expect_tensor("scale", scale, FLOATS)
    expect_tensor("minimum", minimum, FLOATS)
    expect_value("group", group in GROUPS, group, "32, 64 or 128")
    expect_value("x", x.dim() == 2, f"shape {list(x.shape)}", "[M, K]")
    groups = -(-x.shape[1] // group)
    expect_shape("packed", packed, (None, groups * group // 2), "half a byte for each of K, filled up to whole groups")
    expect_shape("scale", scale, (packed.shape[0], groups), "one for each group of a row")
    expect_shape("minimum", minimum, scale.shape, "one for each scale")
    expect_same("minimum", minimum, "scale", scale)
    for name, other in (("packed", packed), ("scale", scale)):
        expect_same(name, other, "x", x, dtype=False)


def meta(x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, group: int) -> Tensor:
    """``[M, N]`` of ``x``'s dtype."""
    return x.new_empty((x.shape[0], packed.shape[0]))


def pack(q: Tensor, group: int) -> Tensor:
    """``q``: integers in 0..15, ``[N, K]`` -> uint8 ``[N, ceil(K / group) * group / 2]``."""
    expect_value("q", not q.numel() or (int(q.min()) >= 0 and int(q.max()) <= 15), "another number", "0..15")
    halves = F.pad(q.to(torch.uint8), (0, -q.shape[1] % group)).view(q.shape[0], -1, 2, HALF)
    return (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)


def unpack(packed: Tensor, size: int) -> Tensor:
    """The inverse of ``pack``: uint8 ``[N, size]``."""
    runs = packed.view(packed.shape[0], -1, HALF)
    return torch.stack((runs & 15, runs >> 4), 2).flatten(1)[:, :size]


def dequantize(packed: Tensor, scale: Tensor, minimum: Tensor, size: int, group: int) -> Tensor:
    """The weight ``[N, size]``, in the dtype of ``scale``."""
    wide = scale.repeat_interleave(group, 1)[:, :size], minimum.repeat_interleave(group, 1)[:, :size]
    return unpack(packed, size).to(scale.dtype) * wide[0] + wide[1]


class Quantized(NamedTuple):
    """A weight as ``int4_gemm`` takes it."""

    packed: Tensor
    scale: Tensor
    minimum: Tensor


def quantize(weight: Tensor, group: int, dtype: torch.dtype = torch.float16) -> Quantized:
    """``[N, K]``, to the nearest, each group from its smallest to its largest."""
    rows, size = weight.shape
    filled = F.pad(weight.float()[None], (0, -size % group), "replicate")[
        0
    ]  # so that the last group's ends are its own
    groups = filled.view(rows, -1, group)
    low, high = groups.amin(2), groups.amax(2)
    scale, minimum = ((high - low) / 15).to(dtype), low.to(dtype)
    steps = torch.where(scale > 0, scale, 1.0).float()
    q = ((groups - minimum.float()[:, :, None]) / steps[:, :, None]).round().clamp(0, 15)
    return Quantized(pack(q.flatten(1), group), scale, minimum)
