"""Effect size between two labels: the ratio of their geometric means over runs, with a 95 % interval.

The interval holds every ratio that the permutation test would not reject (Pitman 1937; Garthwaite 1996, Biometrics 52), so it
leaves out 1 exactly where the test says "differs", and it is exact for any distribution of the runs' noise. A bootstrap of five
runs is not: it covers 88 %.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from octavo.bench.statistics.dependence import Array
from octavo.bench.statistics.permutation import MOST_DEALS
from octavo.bench.types import Interval


def ratio_interval(base: Array, other: Array, seed: int, confidence: float = 0.95) -> Interval:
    """other / base, both all above zero, one value per run. Without bounds where there are too few runs for any
    (fewer than 4 + 4)."""
    first, second = np.log(base), np.log(other)
    ratio = math.exp(float(second.mean() - first.mean()))
    differences = np.sort(_exchanged(first, second, seed))
    # reject a shift if at most this many of the others are as extreme: 1 + rank deals of all of them, on either side
    rank = math.floor((1 - confidence) / 2 * (len(differences) + 1) + 1e-9) - 1
    if rank < 0:
        return Interval(ratio, None, None)
    return Interval(ratio, math.exp(float(differences[rank])), math.exp(float(differences[-1 - rank])))


def _exchanged(first: Array, second: Array, seed: int) -> Array:
    """For every deal of the runs but the true one: mean of what changed sides in ``second`` - mean of what did in ``first``.
    A shift is at the edge of rejection where one of these equals it."""
    num_first, num_all = len(first), len(first) + len(second)
    deals = math.comb(num_all, num_first)
    if deals <= MOST_DEALS:
        chosen = np.array(list(itertools.combinations(range(num_all), num_first)))[1:]
    else:
        rng = np.random.default_rng(seed)
        chosen = np.argsort(rng.random((MOST_DEALS, num_all)), axis=1)[:, :num_first]
    in_first = np.zeros((len(chosen), num_all), dtype=bool)
    np.put_along_axis(in_first, chosen, True, axis=1)
    came, went = in_first[:, num_first:], ~in_first[:, :num_first]
    moved = came.sum(axis=1)
    came, went, moved = came[moved > 0], went[moved > 0], moved[moved > 0]
    found: Array = (came @ second) / moved - (went @ first) / moved
    return found
