"""Argument checks and meta kernel of ``rotary``: pairs ``(x[d], x[d + R/2])`` rotated by the angle ``position * inv_freq[d]``.

out[d]       = x[d] cos_d - x[d + R/2] sin_d
out[d + R/2] = x[d + R/2] cos_d + x[d] sin_d

R is the head's size, or less where only its first dimensions are rotated. ``rotary_write_kv`` rotates the
queries and keys of a step and stores keys and values in the paged cache at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value
from octavo.kernels.operation import taking
from octavo.kernels.paged_attention.checks import check_cache


def check(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """``x``: ``[T, H, D]``, each row dense (a slice of a larger one's heads will do); ``cos``, ``sin``: float32 ``[T, R/2]``."""
    _expect_rows("x", x)
    _expect_angles(x, cos, sin)


def meta(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Shape and dtype of ``x``, contiguous."""
    return x.new_empty(x.shape)


class RotaryWriteKV(NamedTuple):
    """The arguments of one call.

    ``q``: ``[T, H, D]``; ``k``, ``v``: ``[T, KH, D]``, all with dense rows; the cache is paged_attention's.
    ``slots``: int64 ``[T]``, block * block_size + offset of each row; a row whose slot is not in the cache (-1) is not stored.
    In a cache of float8_e4m3fn stands ``k / key_scale[head]``, saturated at 448.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    cos: Tensor
    sin: Tensor
    keys: Tensor
    values: Tensor
    slots: Tensor
    key_scale: Tensor | None = None
    value_scale: Tensor | None = None


@taking(RotaryWriteKV)
def check_write_kv(call: RotaryWriteKV) -> None:
    """What the host can see; nothing is read back from the device."""
    q, keys, slots = call.q, call.keys, call.slots
    for name, rows in (("q", q), ("k", call.k), ("v", call.v)):
        _expect_rows(name, rows)
        expect_same(name, rows, "q", q)
    _expect_angles(q, call.cos, call.sin)
    check_cache(q, keys, call.values, call.key_scale, call.value_scale)
    for name, rows in (("k", call.k), ("v", call.v)):
        expect_shape(name, rows, (q.shape[0], *keys.shape[2:]), "rows of q, heads and head size of keys")
    expect_value("q", q.shape[2] == keys.shape[3], f"head size {q.shape[2]}", f"{keys.shape[3]}, that of keys")
    expect_tensor("slots", slots, (torch.int64,))
    expect_same("slots", slots, "q", q, dtype=False)
    expect_shape("slots", slots, (q.shape[0],), "one for each row of q")


@taking(RotaryWriteKV)
def meta_write_kv(call: RotaryWriteKV) -> Tensor:
    """Shape and dtype of ``q``, contiguous."""
    return call.q.new_empty(call.q.shape)


def _expect_rows(name: str, rows: Tensor) -> None:
    expect_tensor(name, rows, contiguous=False)
    expect_shape(name, rows, (None, None, None), "[T, heads, head_dim]")
    dense = rows.numel() == 0 or rows[0].is_contiguous()
    expect_value(name, dense, f"strides {tuple(rows.stride())}", "rows that are dense; call .contiguous()")


def _expect_angles(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    for name, angles in (("cos", cos), ("sin", sin)):
        expect_tensor(name, angles, (torch.float32,))
        expect_shape(name, angles, (x.shape[0], None), "[T, R/2]")
        expect_same(name, angles, "the rows", x, dtype=False)
    expect_shape("sin", sin, cos.shape, "the shape of cos")
    fits = 2 * cos.shape[1] <= x.shape[2]
    expect_value("cos", fits, f"{cos.shape[1]} angles", f"at most {x.shape[2] // 2}, half the head size")
