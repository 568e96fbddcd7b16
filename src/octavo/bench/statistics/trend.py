"""Is a series stationary: a slope test that correlation inside the series does not fool.

Mann-Kendall (Kendall's tau of value against time; Mann 1945) on means of long batches: ranks do not mind skewed latencies, and
batches several block lengths long are nearly independent, where the single values are far from it.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from octavo.bench.statistics.dependence import Array, block_length

MOST_BATCHES = 20
FEWEST_BATCHES = 8
BLOCKS_PER_BATCH = 2
FEWEST_PER_BATCH = 3
ROUNDING = 1e-9  # relative: smaller differences are the arithmetic's


def slope_p_value(values: Array) -> float | None:
    """Probability of so steep a trend in a stationary series; None where the series is too short to tell (fewer than eight
    batches of two block lengths, at least three values each)."""
    size = len(values)
    if size < FEWEST_BATCHES * FEWEST_PER_BATCH:
        return None
    batch = max(FEWEST_PER_BATCH, BLOCKS_PER_BATCH * _block_length(values), size // MOST_BATCHES)
    num_batches = size // batch
    if num_batches < FEWEST_BATCHES:
        return None
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
