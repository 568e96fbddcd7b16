"""Rotary embedding in Triton, alone or with the step's keys and values stored in the paged cache by the same launch.

The queries come back as a new tensor and are not rotated in place: they arrive as a slice of the projection's output, attention
wants them dense, and writing them somewhere else costs the same bytes. The cosines and sines of a step are computed once and
read by every layer (2 % of the traffic).

Bound by memory: queries, keys and values are read and written once. A program has one token and about 2,048 elements of its
heads, two 16-byte loads a thread. Prediction for an H200: 87 % of copy bandwidth for prefill.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import to_e4m3
from octavo.kernels.operation import taking
from octavo.kernels.paged_attention.checks import FP8
from octavo.kernels.rotary.checks import RotaryWriteKV

TILE = 2048  # elements a program


@triton.jit
def _store(to, at, values, inside, scale, head, heads, FP8_CACHE: tl.constexpr):
    if FP8_CACHE:
        scales = tl.load(scale + head, mask=head < heads, other=1.0)
        tl.store(to + at, to_e4m3(values / scales), mask=inside)
    else:
        tl.store(to + at, values.to(to.dtype.element_ty), mask=inside)


@triton.jit
def _turn(x, cos, sin, to, scale, from_row, to_row, token, first, heads,
          HALF: tl.constexpr, HEAD_DIM: tl.constexpr, ROTATES: tl.constexpr, FP8_CACHE: tl.constexpr,
          HEADS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """``HEADS`` heads of one token, from ``x + from_row`` to ``to + to_row``; only copied unless ``ROTATES``."""
    head = first + tl.arange(0, HEADS)[:, None]
    d = tl.arange(0, BLOCK)[None, :]
    inside = (head < heads) & (d < HALF)
    at = head * HEAD_DIM + d
    low = tl.load(x + from_row + at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(x + from_row + at + HALF, mask=inside, other=0.0).to(tl.float32)
    if ROTATES:
        c = tl.load(cos + token * HALF + d, mask=d < HALF, other=0.0)
        s = tl.load(sin + token * HALF + d, mask=d < HALF, other=0.0)
        low, high = low * c - high * s, high * c + low * s
    _store(to + to_row, at, low, inside, scale, head, heads, FP8_CACHE)
    _store(to + to_row, at + HALF, high, inside, scale, head, heads, FP8_CACHE)
    for start in tl.static_range(2 * HALF, HEAD_DIM, BLOCK):  # what is not rotated
        inside = (head < heads) & (start + d < HEAD_DIM)
        rest = tl.load(x + from_row + at + start, mask=inside, other=0.0).to(tl.float32)
        _store(to + to_row, at + start, rest, inside, scale, head, heads, FP8_CACHE)


@triton.jit
def _rotary(x, cos, sin, out, stride, heads,
            HALF: tl.constexpr, HEAD_DIM: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    token, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * HEADS
    _turn(x, cos, sin, out, None, token * stride, token * heads * HEAD_DIM, token, first, heads,
          HALF, HEAD_DIM, True, False, HEADS, BLOCK)  # fmt: skip


@triton.jit
def _write_kv(q, k, v, cos, sin, out, keys, values, slots, key_scale, value_scale,
              q_stride, k_stride, v_stride, num_slots, heads, kv_heads,
              HALF: tl.constexpr, HEAD_DIM: tl.constexpr, FP8_CACHE: tl.constexpr,
              HEADS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Second axis: tiles of the query heads, then of the keys' heads, then of the values'."""
    token, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    query_tiles, kv_tiles = tl.cdiv(heads, HEADS), tl.cdiv(kv_heads, HEADS)
    if tile < query_tiles:
        _turn(q, cos, sin, out, None, token * q_stride, token * heads * HEAD_DIM, token, tile * HEADS, heads,
              HALF, HEAD_DIM, True, False, HEADS, BLOCK)  # fmt: skip
    else:
        slot = tl.load(slots + token)
        to_row = slot * kv_heads * HEAD_DIM
        if (slot >= 0) & (slot < num_slots):
            if tile < query_tiles + kv_tiles:
                _turn(k, cos, sin, keys, key_scale, token * k_stride, to_row, token, (tile - query_tiles) * HEADS,
                      kv_heads, HALF, HEAD_DIM, True, FP8_CACHE, HEADS, BLOCK)  # fmt: skip
            else:
                _turn(v, cos, sin, values, value_scale, token * v_stride, to_row, token,
                      (tile - query_tiles - kv_tiles) * HEADS, kv_heads, HALF, HEAD_DIM, False, FP8_CACHE, HEADS,
                      BLOCK)  # fmt: skip


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``x``: ``[T, H, D]``; ``cos``, ``sin``: float32 ``[T, R/2]`` -> a new tensor like ``x``."""
    out, heads = x.new_empty(x.shape), x.shape[1]
    if out.numel():
        tiles = _tiles(heads, x.shape[2], cos.shape[1])
        grid = (x.shape[0], triton.cdiv(heads, tiles["HEADS"]))
        _rotary[grid](x, cos, sin, out, x.stride(0), heads, **tiles)
    return out


@taking(RotaryWriteKV)
def rotary_write_kv(call: RotaryWriteKV) -> Tensor:
    """The queries rotated; keys rotated and values as they are in their slots."""
    q, k, v, keys, values = call.q, call.k, call.v, call.keys, call.values
    out, heads, kv_heads, is_fp8 = q.new_empty(q.shape), q.shape[1], k.shape[1], keys.dtype == FP8
    if q.numel() == 0:
        return out
    tiles = _tiles(heads, q.shape[2], call.cos.shape[1])
    grid = (q.shape[0], triton.cdiv(heads, tiles["HEADS"]) + 2 * triton.cdiv(kv_heads, tiles["HEADS"]))
    if is_fp8:
        keys, values = keys.view(torch.uint8), values.view(torch.uint8)
    _write_kv[grid](
        q, k, v, call.cos, call.sin, out, keys, values, call.slots, call.key_scale, call.value_scale,
        q.stride(0), k.stride(0), v.stride(0), keys.shape[0] * keys.shape[1], heads, kv_heads, FP8_CACHE=is_fp8, **tiles,
    )  # fmt: skip
    return out


def _tiles(heads: int, head_dim: int, half: int) -> dict[str, Any]:
    """``HALF`` and ``HEAD_DIM`` as they are, ``BLOCK`` to hold a half, ``HEADS`` to fill a program."""
    block = max(16, triton.next_power_of_2(half))
    most = max(1, TILE // (2 * block))
    return {"HALF": half, "HEAD_DIM": head_dim, "HEADS": min(most, triton.next_power_of_2(heads)), "BLOCK": block}


_TILES = {"HALF": 64, "HEAD_DIM": 128, "HEADS": 16, "BLOCK": 64}
_WRITE = {
    "q": "*bf16", "k": "*bf16", "v": "*bf16", "cos": "*fp32", "sin": "*fp32", "out": "*bf16", "keys": "*bf16",
    "values": "*bf16", "slots": "*i64", "key_scale": None, "value_scale": None, "q_stride": "i32", "k_stride": "i32",
    "v_stride": "i32", "num_slots": "i32", "heads": "i32", "kv_heads": "i32", "FP8_CACHE": False, **_TILES,
}  # fmt: skip
_FP8 = {"keys": "*u8", "values": "*u8", "key_scale": "*fp32", "value_scale": "*fp32", "FP8_CACHE": True}
_STRIDES = ("stride", "q_stride", "k_stride", "v_stride")
AHEAD = (
    Ahead(
        "rotary",
        _rotary,
        {"x": "*bf16", "cos": "*fp32", "sin": "*fp32", "out": "*bf16", "stride": "i32", "heads": "i32", **_TILES},
        divisible=_STRIDES,
    ),
    Ahead("write kv", _write_kv, _WRITE, divisible=_STRIDES),
    Ahead("write kv fp8", _write_kv, {**_WRITE, **_FP8}, divisible=_STRIDES),
)
