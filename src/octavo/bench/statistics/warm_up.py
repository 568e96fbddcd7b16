"""Warm-up cut, the start of the steady state, by MSER-5 (White 1997, "An effective truncation heuristic for bias reduction in
simulation output", Simulation 69; batches of five: White, Cobb & Spratt 2000).

Of all truncation points d it takes the one that minimises the standard error of what remains,
MSER(d) = 1/(m - d)^2 sum_{i > d} (z_i - mean_{> d})^2 over the m batch means z of five. It is looked for in the first half only:
over the whole run, the least spread of all is often that of some short quiet piece near the end, and a fourfold slow start then
stayed in a quarter of all runs. A minimum at the edge of that half means that no steady state was reached; the run is then left
whole, and the slope test has the word.

MSER also cuts where nothing warms up: a stationary queue that happens to be long at the start loses its beginning, which costs
the intervals 3-8 points of coverage. So a cut is made only if the mean of what it takes away lies further from the mean of the
rest than chance allows, given how much the rest is correlated and how well that is known.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from octavo.bench.statistics.dependence import Array, block_length, long_run_variance

BATCH = 5
DIFFERS = 4.0  # standard errors, if they were known exactly; what it finds and misses: docs/results/bench-statistics.md
FEWEST = 4 * BATCH  # fewer values than this have no steady state to look for


def warm_up_length(values: Array) -> int:
    """How many values at the start to cut: a multiple of five, less than half of them."""
    num_batches = len(values) // BATCH
    if len(values) < FEWEST:
        return 0
    batches = values[: num_batches * BATCH].reshape(num_batches, BATCH).mean(axis=1)
    backwards = (batches - batches.mean())[::-1]
    count = np.arange(1, num_batches + 1)
    squares = np.cumsum(backwards**2) - np.cumsum(backwards) ** 2 / count
    squares[squares < 1e-12 * squares[-1]] = 0.0  # rounding; of equally steady rests the longest wins
    score = (squares / count**2)[::-1]  # score[d]: the first d batches cut
    half = num_batches // 2
    cut = int(np.argmin(score[: half + 1]))
    return cut * BATCH if 0 < cut < half and _differs(values, cut * BATCH) else 0


def _differs(values: Array, cut: int) -> bool:
    """Whether the mean of the first ``cut`` lies further from that of the rest than DIFFERS standard errors of a mean of ``cut``
    such values; the error is estimated from as many blocks as the rest holds, so Student's t takes the normal's place."""
    rest = values[cut:]
    length = max(3, block_length(rest))
    error = math.sqrt(long_run_variance(rest, length) * (1 / cut + 1 / len(rest)))
    freedom = max(2.0, len(rest) / length - 1)
    limit = float(stats.t.isf(stats.norm.sf(DIFFERS), freedom)) * error
    return bool(abs(values[:cut].mean() - rest.mean()) > limit)
