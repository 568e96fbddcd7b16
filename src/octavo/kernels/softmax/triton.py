"""Softmax in Triton: short rows stay in registers, longer ones are read twice.

Bound by memory: a read and a write of every element. Up to ``REGISTERS`` elements a row lives in a program's registers (32 a
thread at sixteen warps), so it is read once. A longer row is read a second time; with one row a program, an H200's 132 rows
of 128 Ki 16-bit values are 33 MiB and the second read comes from its 50 MiB of L2. Fewer rows than SMs are cut into splits:
one launch finds each split's maximum and sum, the next combines them in a fixed order and writes.
Prediction for an H200: 90 % of copy bandwidth for short rows, 80 % for long ones.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import num_sms, row_tiles

REGISTERS = 32768  # the longest row that is read once
TILE = 8192  # of a longer row


@triton.jit
def _short(x, out, num_rows, size, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """``ROWS`` whole rows a program."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < num_rows) & (column < size)
    values = tl.load(x + row * size + column, mask=inside, other=-float("inf")).to(tl.float32)
    weights = tl.exp(values - tl.max(values, axis=1)[:, None])
    weights *= 1.0 / tl.sum(weights, axis=1)[:, None]
    tl.store(out + row * size + column, weights.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _split(x, start, end, BLOCK: tl.constexpr):
    """Maximum of ``x[start:end]``, and the sum of ``exp(x - maximum)``: online, lane by lane (Milakov and Gimelshein, 2018)."""
    top = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(start, end, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        values = tl.load(x + column, mask=column < end, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(top, values)
        finite = tl.where(
            higher == -float("inf"), 0.0, higher
        )  # nothing seen yet: exp(-inf - 0) and not exp(-inf + inf)
        total = total * tl.exp(top - finite) + tl.exp(values - finite)
        top = higher
    return _combine(top, total)


@triton.jit
def _combine(top, total):
    """One maximum and sum from many."""
    highest = tl.max(top, axis=0)
    finite = tl.where(highest == -float("inf"), 0.0, highest)
    return highest, tl.sum(total * tl.exp(top - finite), axis=0)


@triton.jit
def _write(x, out, start, end, top, total, BLOCK: tl.constexpr):
    for begin in range(start, end, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        values = tl.load(x + column, mask=column < end).to(tl.float32)
        tl.store(out + column, (tl.exp(values - top) * (1.0 / total)).to(out.dtype.element_ty), mask=column < end)


@triton.jit
def _long(x, out, size, BLOCK: tl.constexpr):
    """A row a program, read twice."""
    at = tl.program_id(0).to(tl.int64) * size
    top, total = _split(x + at, 0, size, BLOCK)
    _write(x + at, out + at, 0, size, top, total, BLOCK)


@triton.jit
def _statistics(x, tops, totals, size, split_size, BLOCK: tl.constexpr):
    """A split of a row a program: its maximum and sum."""
    row, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    top, total = _split(x + row * size, number * split_size, min(size, number * split_size + split_size), BLOCK)
    at = row * tl.num_programs(1) + number
    tl.store(tops + at, top)
    tl.store(totals + at, total)


@triton.jit
def _from_statistics(x, out, tops, totals, size, split_size, BLOCK: tl.constexpr, SPLITS: tl.constexpr):
    """A split of a row a program: every split's maximum and sum combined, then written."""
    row, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    splits = tl.num_programs(1)
    each = tl.arange(0, SPLITS)
    split_tops = tl.load(tops + row * splits + each, mask=each < splits, other=-float("inf"))
    split_totals = tl.load(totals + row * splits + each, mask=each < splits, other=0.0)
    top, total = _combine(split_tops, split_totals)
    end = min(size, number * split_size + split_size)
    _write(x + row * size, out + row * size, number * split_size, end, top, total, BLOCK)


def softmax(x: Tensor) -> Tensor:
    """``x``: ``[..., N]`` -> shape and dtype of ``x``."""
    out, size = torch.empty_like(x), x.shape[-1]
    num_rows = x.numel() // size
    if num_rows == 0:
        return out
    if size <= REGISTERS:
        tiles = row_tiles(num_rows, size, x.device)
        _short[(triton.cdiv(num_rows, tiles.rows),)](x, out, num_rows, size, **tiles.launch())
        return out
    splits = min(triton.cdiv(2 * num_sms(x.device), num_rows), triton.cdiv(size, TILE))
    if splits == 1:
        _long[(num_rows,)](x, out, size, BLOCK=TILE, num_warps=16)
        return out
    split_size = triton.cdiv(triton.cdiv(size, splits), TILE) * TILE
    grid = (num_rows, triton.cdiv(size, split_size))
    tops, totals = (torch.empty(grid, dtype=torch.float32, device=x.device) for _ in range(2))
    _statistics[grid](x, tops, totals, size, split_size, BLOCK=TILE, num_warps=16)
    most = triton.next_power_of_2(grid[1])
    _from_statistics[grid](x, out, tops, totals, size, split_size, BLOCK=TILE, SPLITS=most, num_warps=16)
    return out


_TYPES = {"x": "*bf16", "out": "*bf16", "num_rows": "i32", "size": "i32"}
_LONG = {"x": "*bf16", "out": "*bf16", "size": "i32", "BLOCK": TILE}
_SPLIT = {"x": "*bf16", "tops": "*fp32", "totals": "*fp32", "size": "i32", "split_size": "i32", "BLOCK": TILE}
AHEAD = (
    *(
        Ahead(f"{rows} x {block}", _short, {**_TYPES, "ROWS": rows, "BLOCK": block}, warps, divisible=("size",))
        for rows, block, warps in ((16, 128, 4), (1, 4096, 8), (1, 32768, 32))
    ),
    Ahead("long", _long, _LONG, 16, divisible=("size",)),
    Ahead("statistics", _statistics, _SPLIT, 16, divisible=("size", "split_size")),
    Ahead(
        "from statistics",
        _from_statistics,
        {**_SPLIT, "out": "*bf16", "SPLITS": 16},
        16,
        divisible=("size", "split_size"),
    ),
)
