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


def slope_p_value(values: Array) -> float | None:
    """Probability of so steep a trend in a stationary series; None where the series is too short to tell (fewer than eight
    batches of two block lengths, at least three values each)."""
    size = len(values)
    batch = max(3, BLOCKS_PER_BATCH * block_length(_without_trend(values)), size // MOST_BATCHES) if size else 1
    num_batches = size // batch
    if num_batches < FEWEST_BATCHES:
        return None
    means = values[size - num_batches * batch :].reshape(num_batches, batch).mean(axis=1)
    if means.max() == means.min():
        return 1.0
    return float(stats.kendalltau(np.arange(num_batches), means).pvalue)


def _without_trend(values: Array) -> Array:
    """A trend must not pass for correlation: it would make the batches so long that nothing is left to test."""
    if len(values) < 3:
        return values
    time = np.arange(len(values), dtype=np.float64)
    line = stats.linregress(time, values)
    rest: Array = values - line.slope * time
    return rest
