"""Rotary embedding with torch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.operation import taking
from octavo.kernels.paged_attention.checks import FP8
from octavo.kernels.rotary.angles import WideAngles
from octavo.kernels.rotary.checks import RotaryWriteKV

FP8_MAX = 448.0


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``x``: ``[T, H, D]``; ``cos``, ``sin``: float32 ``[T, R/2]`` -> a new tensor like ``x``, float32 inside."""
    half, out = cos.shape[1], x.new_empty(x.shape)
    low, high = x[..., :half].float(), x[..., half : 2 * half].float()
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    out[..., :half] = low * cos - high * sin
    out[..., half : 2 * half] = high * cos + low * sin
    out[..., 2 * half :] = x[..., 2 * half :]
    return out


def rotate(x: Tensor, angles: WideAngles) -> Tensor:
    """``rotary`` in two passes of torch, in ``x``'s dtype, with angles that are laid out once a step: a CPU's models use it."""
    low, high = x.chunk(2, -1)
    return torch.addcmul(x * angles.cos, torch.cat((high, low), -1), angles.sin)


@taking(RotaryWriteKV)
def rotary_write_kv(call: RotaryWriteKV) -> Tensor:
    """The queries rotated; keys rotated and values as they are in their slots."""
    slots, keys = call.slots, rotary(call.k.float(), call.cos, call.sin)
    inside = (slots >= 0) & (slots < call.keys.shape[0] * call.keys.shape[1])
    for rows, cache, scale in ((keys, call.keys, call.key_scale), (call.v, call.values, call.value_scale)):
        if scale is not None:
            rows = (rows / scale[:, None]).clamp(-FP8_MAX, FP8_MAX)
        stored = rows.to(cache.dtype)[inside]
        if cache.dtype == FP8:  # indexing knows no 8-bit floats
            cache, stored = cache.view(torch.uint8), stored.view(torch.uint8)
        cache.view(-1, *cache.shape[2:])[slots[inside]] = stored
    return rotary(call.q, call.cos, call.sin)
