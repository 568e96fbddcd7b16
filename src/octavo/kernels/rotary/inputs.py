"""Test inputs of ``rotary``: odd head sizes and counts, partial rotation, strided rows; with and without a cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import Inputs
from octavo.kernels.paged_attention.checks import FP8


@dataclass(frozen=True, slots=True)
class Shape:
    """``[rows, heads + 2 * kv_heads, head_dim]`` of queries, keys, values; the first ``rotary_dim`` dimensions rotate."""

    rows: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    dtype: torch.dtype = torch.float32
    fp8: bool = False

    def __str__(self) -> str:
        words = (
            f"{self.rows} rows, {self.heads} over {self.kv_heads} heads of {self.head_dim}, {self.rotary_dim} rotated"
        )
        return f"{words} {str(self.dtype)[6:]}{' fp8 cache' * self.fp8}"

    def angles(self, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """``cos`` and ``sin``, each ``[rows, rotary_dim / 2]``, float32, of angles in 0 .. 1000."""
        angles = 1000 * torch.rand(self.rows, self.rotary_dim // 2, generator=generator)
        return {"cos": angles.cos().to(device), "sin": angles.sin().to(device)}

    def qkv(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """``[rows, heads + 2 * kv_heads, head_dim]``, normal."""
        shape = (self.rows, self.heads + 2 * self.kv_heads, self.head_dim)
        return torch.randn(shape, generator=generator).to(device, self.dtype)

    def make(self, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
        """For ``rotary``."""
        return {"x": self.qkv(generator, device)[:, : self.heads], **self.angles(generator, device)}

    def make_write_kv(self, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
        """For ``rotary_write_kv``: blocks of 4, shuffled slots, some rows that are not to be stored, the rest NaN."""
        qkv = self.qkv(generator, device)
        num_blocks = self.rows // 4 + 2
        slots = torch.randperm(4 * num_blocks, generator=generator)[: self.rows]
        slots[1::7], slots[3::11] = -1, 4 * num_blocks
        cache = torch.full((num_blocks, 4, self.kv_heads, self.head_dim), torch.nan)
        dtype = FP8 if self.fp8 else self.dtype
        scales = {name: 0.01 + torch.rand(self.kv_heads, generator=generator) for name in ("key_scale", "value_scale")}
        return {
            "q": qkv[:, : self.heads],
            "k": qkv[:, self.heads : -self.kv_heads],
            "v": qkv[:, -self.kv_heads :],
            **self.angles(generator, device),
            "keys": cache.to(device, dtype),
            "values": cache.to(device, dtype),
            "slots": slots.to(device),
            **{name: one.to(device) if self.fp8 else None for name, one in scales.items()},
        }


SHAPES = (
    Shape(1, 1, 1, 2, 2),
    Shape(9, 5, 3, 40, 40),
    Shape(13, 4, 2, 64, 64, torch.bfloat16),
    Shape(6, 9, 3, 80, 32, torch.float16),
    Shape(5, 2, 1, 24, 0),
    Shape(3, 33, 1, 128, 128, torch.bfloat16),
    Shape(0, 2, 1, 8, 8),
    Shape(4096, 32, 8, 128, 128, torch.bfloat16),
)
INPUTS = tuple(Inputs(str(one), one.make, small=one.rows < 1000) for one in SHAPES)
