"""Test inputs of ``paged_attention``: block edges, windows, grouped query heads, soft caps, fp8 cache, poisoned memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import Inputs, Tolerance
from octavo.kernels.paged_attention.checks import FP8


@dataclass(frozen=True, slots=True)
class Shape:
    """One batch. Decodes come first; all that no request owns is NaN in the cache."""

    query_lens: tuple[int, ...]
    context_lens: tuple[int, ...]
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    fp8: bool = False
    window: int = 0
    soft_cap: float = 0.0
    split_tokens: int = 0
    bad_block: bool = False  # the second request names a block that does not exist

    def make(self, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
        """The operation's arguments; as a benchmark's as well."""
        tables, num_blocks = self._tables(generator)
        owned = self._owned(tables, num_blocks)
        keys, values = self._cache(owned, generator, device), self._cache(owned, generator, device)
        scales = [0.25 + torch.rand(self.kv_heads, generator=generator) for _ in range(2)] if self.fp8 else [None, None]
        if self.bad_block:
            tables[1, 0] = num_blocks + 7
        starts = torch.tensor([0, *self.query_lens]).cumsum(0)
        q = torch.randn(sum(self.query_lens), self.heads, self.head_dim, generator=generator)
        arguments: dict[str, Any] = {
            "q": q.to(device, self.dtype),
            "keys": keys,
            "values": values,
            "query_starts": starts.to(device, torch.int32),
            "context_lens": torch.tensor(self.context_lens, dtype=torch.int32, device=device),
            "block_tables": tables.to(device),
            "num_decodes": next((i for i, n in enumerate(self.query_lens) if n != 1), len(self.query_lens)),
            "max_context_len": max(self.context_lens),
            "scale": self.head_dim**-0.5,
            "window": self.window,
            "soft_cap": self.soft_cap,
            "split_tokens": self.split_tokens,
            "debug": self.bad_block,
        }
        for name, scale in zip(("key_scale", "value_scale"), scales, strict=True):
            arguments[name] = None if scale is None else scale.to(device)
        return arguments

    def _tables(self, generator: torch.Generator) -> tuple[Tensor, int]:
        """Shuffled blocks, int32 ``[B, max_blocks]`` padded with 0, and how many there are: three belong to nobody."""
        needed = [-(-context // self.block_size) for context in self.context_lens]
        num_blocks = sum(needed) + 3
        order = torch.randperm(num_blocks, generator=generator).to(torch.int32)
        tables, taken = torch.zeros(len(needed), max(needed), dtype=torch.int32), 0
        for row, count in enumerate(needed):
            tables[row, :count] = order[taken : taken + count]
            taken += count
        return tables, num_blocks

    def _owned(self, tables: Tensor, num_blocks: int) -> Tensor:
        """``[num_blocks, block_size]``: slots that hold a token."""
        owned = torch.zeros(num_blocks, self.block_size, dtype=torch.bool)
        for row, context in enumerate(self.context_lens):
            blocks = tables[row, : -(-context // self.block_size)].long()
            inside = torch.arange(len(blocks) * self.block_size) < context
            owned[blocks] = inside.view(len(blocks), self.block_size)
        return owned

    def _cache(self, owned: Tensor, generator: torch.Generator, device: torch.device) -> Tensor:
        rows = torch.randn(int(owned.sum()), self.kv_heads, self.head_dim, generator=generator)
        dtype = FP8 if self.fp8 else self.dtype
        cache = torch.full((*owned.shape, self.kv_heads, self.head_dim), torch.nan).to(dtype)
        cache.view(torch.uint8)[owned] = rows.to(dtype).view(torch.uint8)
        return cache.to(device)


def _case(name: str, shape: Shape, tolerance: Tolerance | None = None) -> Inputs:
    return Inputs(name, shape.make, tolerance, small=sum(shape.context_lens) < 1000)


RAGGED = Shape((1, 1, 1, 2, 37, 18), (1, 17, 150, 2, 60, 18))
DECODES = Shape((1, 1, 1), (100, 257, 33))

INPUTS = (
    _case("one token", Shape((1,), (1,))),
    _case("ragged", RAGGED),
    _case("ragged bfloat16, 3 heads a group", replace(RAGGED, heads=9, kv_heads=3, dtype=torch.bfloat16)),
    _case("ragged float16, block of 8, head of 40", replace(RAGGED, block_size=8, head_dim=40, dtype=torch.float16)),
    _case("ragged, window 5", replace(RAGGED, window=5)),
    _case("ragged, window 100, block of 12", replace(RAGGED, window=100, block_size=12)),
    _case("ragged, soft cap", replace(RAGGED, soft_cap=2.0)),
    _case("ragged, fp8 cache, window 21", replace(RAGGED, fp8=True, window=21)),
    _case("decodes, fp8 cache, bfloat16", replace(DECODES, heads=8, fp8=True, dtype=torch.bfloat16)),
    _case("decodes, one kv head, split in 64", replace(DECODES, heads=5, kv_heads=1, split_tokens=64)),
    _case("decodes, a context of 0", Shape((1, 1, 1), (5, 0, 20))),
    _case("decodes, a block out of range", Shape((1, 1, 1), (40, 33, 20), bad_block=True)),
    _case("prefill with a cached prefix", Shape((65,), (131,), heads=2, kv_heads=1, soft_cap=30.0, window=77)),
    _case("prefill behind long prefixes", Shape((20, 3), (300, 200), heads=2, kv_heads=1, head_dim=24)),
    _case("prefill, window 290, fp8 cache", Shape((9,), (400,), heads=3, kv_heads=1, window=290, fp8=True)),
    _case("8 decodes at 4096 bfloat16", Shape((1,) * 8, (4096,) * 8, 32, 8, 128, dtype=torch.bfloat16)),
    _case("2 prefills of 2048 bfloat16", Shape((2048, 2048), (2048, 3000), 4, 1, 128, dtype=torch.bfloat16)),
    _case("fp8 decodes at 4096", Shape((1,) * 4, (4096, 4000, 1, 77), 32, 8, 128, 64, torch.bfloat16, fp8=True)),
)
