"""Exact permutation test over runs, and Holm's correction for several metrics.

The unit is a run, never a request: requests of one run share their queue and their machine, and counted as independent they make
any two runs of the same server differ "significantly". If the label meant nothing, every way to deal the runs to the labels
would be equally likely (Fisher 1935; Pitman 1937). With 5 + 5 runs there are 252 ways, so the smallest two-sided p-value is
2/252 = 0.008; with 3 + 3 it is 0.1, and nothing can ever be shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from octavo.bench.statistics.dependence import Array

MOST_DEALS = 20_000  # up to this many all are tried, else as many at random


def permutation_p_value(first: Array, second: Array, seed: int) -> float:
    """Two-sided p-value of the difference of means; exact up to 8 + 8 values. 1 for a label of fewer than two runs."""
    if min(len(first), len(second)) < 2:
        return 1.0
    found = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        vectorized=True,
        n_resamples=MOST_DEALS,
        rng=np.random.default_rng(seed),
    )
    return min(1.0, float(found.pvalue))


def smallest_p_value(num_first: int, num_second: int) -> float:
    """What that test can say at best."""
    if min(num_first, num_second) < 2:
        return 1.0
    deals = math.comb(num_first + num_second, num_first)
    return min(1.0, 2 / min(deals, MOST_DEALS))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of even one false "differs" stays below the level that they are compared with (Holm 1979):
    the i-th smallest of m times m - i + 1, never below the one before it, at most 1."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
