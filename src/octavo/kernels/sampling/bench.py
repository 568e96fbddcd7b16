"""Benchmark shapes of ``sampling``: a vocabulary of 128,256 at decode batch sizes; baseline: torch with a sort."""

from __future__ import annotations

from octavo.kernels.operation import Benchmark
from octavo.kernels.sampling.cpu import sampling
from octavo.kernels.sampling.inputs import Rows

VOCABULARY = 128256


def _benchmark(rows: int, words: str, top_k: int, top_p: float) -> Benchmark:
    made = Rows(rows, VOCABULARY, (0.8,), (top_k,), (top_p,))
    return Benchmark(
        f"{rows} rows, {words}", made.make, moved_bytes=4 * rows * VOCABULARY, baselines={"torch eager": sampling}
    )


BENCHMARKS = tuple(
    _benchmark(rows, *cuts)
    for rows in (1, 64, 256)
    for cuts in (("no cuts", 0, 1.0), ("top_p 0.95", 0, 0.95), ("top_k 50, top_p 0.95", 50, 0.95))
)
