"""Shared Triton helpers: dot product (with the interpreter's workaround), float8 e4m3 conversion, row tiling.

In the interpreter bf16 arithmetic is wrong, so operands of a product become float32 there; on a GPU they stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def dot(a, b, accumulator):
    """``accumulator + a @ b``, in float32; float32 operands are not rounded to TF32."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), accumulator, input_precision="ieee")
    return tl.dot(a, b, accumulator, input_precision="ieee")


@triton.jit
def from_e4m3(bits, NATIVE: tl.constexpr):
    """Bits of a float8_e4m3fn (uint8) -> the same value as float16, exactly.

    ``NATIVE``: by the GPU's own instruction (from sm_89 on). Else the exponent and mantissa bits are moved to a float16's places,
    where the exponent's bias is larger by 8; the two bit patterns that are NaN stay NaN.
    """
    if NATIVE:
        return bits.to(tl.float8e4nv, bitcast=True).to(tl.float16)
    wide = bits.to(tl.uint16)
    value = (((wide & 0x80) << 8) | ((wide & 0x7F) << 7)).to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where((wide & 0x7F) == 0x7F, float("nan"), value).to(tl.float16)


@triton.jit
def to_e4m3(x):
    """float32 -> bits of the nearest float8_e4m3fn (uint8), ties to even, beyond 448 saturated; NaN stays NaN.

    Integer arithmetic on every architecture: the same bits everywhere, and the interpreter proves them.
    """
    raw = x.to(tl.uint32, bitcast=True)
    magnitude = tl.minimum(tl.abs(x), 448.0)
    bits = magnitude.to(tl.uint32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (
        120 << 3
    )  # from bias 127 and 23 bits to bias 7 and 3 bits
    steps = (magnitude * 512.0 + 8388608.0).to(tl.uint32, bitcast=True) - 0x4B000000  # below 2^-6: multiples of 2^-9
    small = magnitude < 0.015625
    result = tl.where(small, steps, normal) | ((raw >> 24) & 0x80)
    return tl.where(x != x, (result & 0x80) | 0x7F, result).to(tl.uint8)


@cache
def has_native_e4m3(device: torch.device) -> bool:
    """Whether ``from_e4m3`` may use the GPU's own conversion."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


@cache
def num_sms(device: torch.device) -> int:
    """Streaming multiprocessors of the GPU; in the interpreter two, so that small cases show every path."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


@dataclass(frozen=True, slots=True)
class RowTiles:
    """How rows that are worked on one by one are dealt out: ``rows`` of them, ``block`` wide, to a program."""

    rows: int
    block: int
    num_warps: int

    def launch(self) -> dict[str, int]:
        """As keyword arguments of a Triton launch."""
        return {"ROWS": self.rows, "BLOCK": self.block, "num_warps": self.num_warps}


def row_tiles(num_rows: int, size: int, device: torch.device) -> RowTiles:
    """Short rows share a program until it has some 2,048 elements, as long as every SM still gets four programs.

    Sixteen elements a thread are two 16-byte loads of float16 in flight; rows too wide for sixteen warps have more.
    """
    block = triton.next_power_of_2(size)
    busy = triton.next_power_of_2(max(1, num_rows // (4 * num_sms(device))))
    rows = max(1, min(2048 // block, busy))
    return RowTiles(rows, block, min(32 if block > 16384 else 16, max(1, rows * block // 512)))
