"""Trend test: whether a series is stationary, by a slope test robust to correlation inside the series.

Mann-Kendall (Kendall's tau of value against time; Mann 1945) on means of long batches: ranks do not mind skewed latencies, and
batches several block lengths long are nearly independent, where the single values are far from it.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from octavo.bench.statistics.dependence import Array, block_length

FEWEST_VALUES = 100
FEWEST_BATCHES = 8
MOST_BATCHES = 20
BLOCKS_PER_BATCH = 2
ROUNDING = 1e-9  # relative: smaller differences are the arithmetic's


def slope_p_value(values: Array) -> float | None:
    """Probability of so steep a trend in a stationary series; None for fewer than 100 values, which cannot tell.

    There are eight batches or more. Where an eighth of the series is shorter than two block lengths (300 requests to a queue at
    90 % load), p < 0.01 comes in a tenth of stationary runs: those are too short for their intervals as well.
    """
    size = len(values)
    if size < FEWEST_VALUES:
        return None
    longest = max(BLOCKS_PER_BATCH * _block_length(values), size // MOST_BATCHES)
    num_batches = max(FEWEST_BATCHES, size // longest)
    batch = size // num_batches
    means = values[size - num_batches * batch :].reshape(num_batches, batch).mean(axis=1)
    if means.max() - means.min() <= ROUNDING * abs(means).max():
        return 1.0
    return float(stats.kendalltau(np.arange(num_batches), means).pvalue)


def _block_length(values: Array) -> int:
    """Of what remains beside a straight line: a trend must not pass for correlation, which would make the batches so long that
    nothing is left to test."""
    time = np.arange(len(values), dtype=np.float64)
    rest = values - stats.linregress(time, values).slope * time
    return block_length(rest) if rest.std() > ROUNDING * abs(values).max() else 1
