"""Benchmark sizes of ``vector_add``: from what fits the cache to what does not."""

from __future__ import annotations

import torch

from octavo.kernels.operation import Benchmark, Goal
from octavo.kernels.vector_add.inputs import make


def _benchmark(count: int, dtype: torch.dtype) -> Benchmark:
    return Benchmark(
        f"{count} {str(dtype)[6:]}",
        lambda generator, device: make((count,), dtype, 0, generator, device),
        moved_bytes=3 * count * dtype.itemsize,
        baselines={"torch eager": lambda a, b: torch.add(a, b)},
        goals=(Goal("copy", 0.95), Goal("torch eager", 1.0)),
    )


BENCHMARKS = (
    _benchmark(1 << 20, torch.float32),
    _benchmark(1 << 28, torch.float32),
    _benchmark(1 << 28, torch.bfloat16),
)
