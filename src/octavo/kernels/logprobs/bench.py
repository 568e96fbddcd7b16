"""Benchmark shapes of ``logprobs``: a vocabulary of 128,256 at decode batch sizes; baseline: torch with a sort."""

from __future__ import annotations

from functools import partial

from octavo.kernels.logprobs.inputs import make
from octavo.kernels.operation import Benchmark
from octavo.kernels.sampling.bench import VOCABULARY
from octavo.kernels.sampling.cpu import logprobs
from octavo.kernels.sampling.inputs import Rows

BENCHMARKS = tuple(
    Benchmark(
        f"{rows} rows, {num_top} alternatives",
        partial(make, Rows(rows, VOCABULARY), num_top),
        moved_bytes=4 * rows * VOCABULARY,
        baselines={"torch eager": logprobs},
    )
    for rows, num_top in ((64, 0), (64, 5), (64, 20))
)
