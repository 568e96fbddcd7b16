"""Benchmark shapes of ``penalties``: a thousand counted tokens per row, bound by launches, not bandwidth."""

from __future__ import annotations

from functools import partial

import torch

from octavo.kernels.operation import Benchmark
from octavo.kernels.penalties.inputs import make
from octavo.kernels.sampling.bench import VOCABULARY
from octavo.kernels.sampling.cpu import penalties

BENCHMARKS = tuple(
    Benchmark(
        f"{rows} rows of 1000 tokens",
        partial(make, (1000,) * rows, VOCABULARY, torch.float32),
        moved_bytes=rows * 1000 * (8 + 8),
        baselines={"torch eager": penalties},
    )
    for rows in (1, 64)
)
