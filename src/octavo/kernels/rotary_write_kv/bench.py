"""Benchmark shapes of ``rotary_write_kv``: those of ``rotary``, with eight heads of keys and values that go to the cache."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from octavo.kernels.operation import Benchmark
from octavo.kernels.rotary.bench import ROWS, goals, shape
from octavo.kernels.rotary.cpu import rotary, rotary_write_kv


def _compiled(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, slots: Tensor, **_: None
) -> Tensor:
    """Without the guard against slots outside of the cache, at which torch.compile would stop: the benchmark has none."""
    for rows, cache in ((rotary(k, cos, sin), keys), (v, values)):
        cache.view(-1, *cache.shape[2:])[slots.clamp(0, cache.shape[0] * cache.shape[1] - 1)] = rows
    return rotary(q, cos, sin)


def _benchmark(rows: int, fp8: bool) -> Benchmark:
    cache_bytes = 1 if fp8 else 2
    compiled = {} if fp8 else {"torch.compile": torch.compile(_compiled)}
    return Benchmark(
        f"{rows} rows of 32 over 8 heads of 128{' fp8 cache' * fp8}",
        replace(shape(rows), fp8=fp8).make_write_kv,
        moved_bytes=rows * (2 * 2 * 32 * 128 + 2 * (2 + cache_bytes) * 8 * 128 + 4 * 128 + 8),
        baselines={"torch eager": rotary_write_kv, **compiled},
        goals=() if fp8 else goals(rows),
    )


BENCHMARKS = (*(_benchmark(rows, False) for rows in ROWS), _benchmark(32768, True))
