"""Quantisation in Triton: a row, or 4,096 elements in groups of one, per program; read once, reduced in registers.

Bound by memory: 2 bytes in, 1 out and a scale. Rows beyond 16,384 elements are read twice, the second time from L2.
The largest magnitude is taken over the floats' bits as integers, where NaN ranks above all.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.gpu.ahead import Ahead
from octavo.kernels.gpu.triton import has_native_e4m3, to_e4m3
from octavo.kernels.quantize_fp8.checks import LARGEST, SMALLEST_GROUP, meta

LONGEST = 16384  # elements of a row that stay in registers
CHUNK = 4096  # elements to a program when there are several groups in a row

_SMALLEST = tl.constexpr(SMALLEST_GROUP)
_LARGEST_FLOAT_BITS = tl.constexpr(0x7F7FFFFF)


@triton.jit
def largest_bits(values):
    """float32 ``[G, S]`` -> int32 ``[G]``: the bits of the largest magnitude."""
    return tl.max(values.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=1)


@triton.jit
def round_to(values, dtype: tl.constexpr, LIMIT: tl.constexpr):
    """float32 in [-LIMIT, LIMIT] but for a rounding -> int8, e4m3, or e4m3's bits as uint8."""
    if dtype == tl.uint8:
        return to_e4m3(values)
    values = tl.clamp(values, -LIMIT, LIMIT)
    if dtype == tl.int8:  # adding 1.5 * 2^23 rounds to an integer, ties to even
        return ((values + 12582912.0) - 12582912.0).to(tl.int8)
    return values.to(dtype)


@triton.jit
def _quantize(
    x,
    q,
    scale,
    size,
    group,
    num_groups,
    LIMIT: tl.constexpr,
    GROUPS: tl.constexpr,
    SPAN: tl.constexpr,
    WHOLE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    groups = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    within = tl.arange(0, SPAN)
    column = groups[:, None] * group + within[None, :]
    inside = (within[None, :] < group) & (column < size)
    values = tl.load(x + row * size + column, mask=inside, other=0.0).to(tl.float32)
    bits = largest_bits(values)
    if not WHOLE:
        for begin in tl.range(SPAN, group, SPAN):
            more = tl.load(x + row * size + begin + column, mask=begin + column < size, other=0.0).to(tl.float32)
            bits = tl.maximum(bits, largest_bits(more))
    most = bits.to(tl.float32, bitcast=True)
    usable = (bits <= _LARGEST_FLOAT_BITS) & (most >= _SMALLEST)
    safe = tl.where(usable, most, 1.0)
    inverse = tl.div_rn(tl.full([GROUPS], LIMIT, tl.float32), safe)
    unusable = tl.where(bits > _LARGEST_FLOAT_BITS, float("nan"), 0.0)
    scales = tl.where(usable, tl.div_rn(safe, tl.full([GROUPS], LIMIT, tl.float32)), unusable)
    tl.store(scale + row * num_groups + groups, scales, mask=groups < num_groups)
    dtype: tl.constexpr = q.dtype.element_ty
    scaled = tl.where(usable[:, None], values * inverse[:, None], 0.0)
    tl.store(q + row * size + column, round_to(scaled, dtype, LIMIT), mask=inside)
    if not WHOLE:
        for begin in tl.range(SPAN, group, SPAN):
            inside = begin + column < size
            more = tl.load(x + row * size + begin + column, mask=inside, other=0.0).to(tl.float32)
            scaled = tl.where(usable[:, None], more * inverse[:, None], 0.0)
            tl.store(q + row * size + begin + column, round_to(scaled, dtype, LIMIT), mask=inside)


def quantize_fp8(x: Tensor, group: int = 0) -> tuple[Tensor, Tensor]:
    """``x``: ``[..., K]`` -> ``q`` e4m3 of its shape, ``scale`` float32 ``[...]`` or ``[..., ceil(K / group)]``."""
    q, scale = meta(x, group)
    launch(x, group, q if has_native_e4m3(q.device) else q.view(torch.uint8), scale, LARGEST)
    return q, scale


def launch(x: Tensor, group: int, q: Tensor, scale: Tensor, limit: float) -> None:
    """Write ``q`` and ``scale``; ``limit``: the largest number of ``q``'s type."""
    size = x.shape[-1]
    num_rows, num_groups = x.numel() // size, -(-size // group) if group else 1
    tile = tiles(size, group)
    if num_rows:
        grid = (num_rows, triton.cdiv(num_groups, tile["GROUPS"]))
        _quantize[grid](x, q, scale, size, group or size, num_groups, LIMIT=limit, **tile, num_warps=num_warps(tile))


def tiles(size: int, group: int) -> dict[str, int]:
    """The kernel's tile for rows of ``size``: ``GROUPS`` groups of at most ``SPAN`` elements."""
    span = min(triton.next_power_of_2(group or size), LONGEST)
    groups = min(triton.next_power_of_2(triton.cdiv(size, group)), CHUNK // span) if group else 1
    return {"GROUPS": groups, "SPAN": span, "WHOLE": int(bool(group) or size <= LONGEST)}


def num_warps(tile: dict[str, int]) -> int:
    """Sixteen elements a thread, between one warp and sixteen."""
    return min(16, max(1, tile["GROUPS"] * tile["SPAN"] // 512))


def ahead(element: str, limit: float, architectures: tuple[int, ...]) -> tuple[Ahead, ...]:
    """For ``q`` of type ``element``: one scale a row, short, long and too long for registers, and groups of 128."""
    types = {"x": "*bf16", "q": f"*{element}", "scale": "*fp32", "size": "i32", "group": "i32", "num_groups": "i32"}
    return tuple(
        Ahead(
            f"{element} {size} by {group or size}",
            _quantize,
            {**types, "LIMIT": limit, **tiles(size, group)},
            num_warps=num_warps(tiles(size, group)),
            divisible=("size", "group"),
            architectures=architectures,
        )
        for size, group in ((4096, 0), (14336, 0), (28672, 0), (4096, 128))
    )


AHEAD = (*ahead("fp8e4nv", LARGEST, (90,)), *ahead("u8", LARGEST, (80,)))
