"""A quantile with its 95 % confidence interval, tails of short and correlated runs included.

The interval is made where it is easy, on the probability, and carried over to seconds by the sample's quantile function:
Woodruff (1952), JASA 47; for independent values this is the order-statistic (binomial) interval. Four things are added.

1. Correlated values count for n/tau. tau comes from the indicators {x <= q} themselves and from a Gaussian working model of the
   ranks, whichever is larger (`working_model.py`). In queues the tail clusters more than that model says; where the p90 shows
   it, the p99 is taken to cluster at least as much as the p90.
2. tau is itself estimated: Student's t with as many degrees of freedom as there are blocks, not the normal; and it is raised in
   series that are short against their own memory (fitted to simulations, as in `mean.py`).
3. 300 requests hold three above the p99, and the interval's upper end often lies beyond the largest. There the upper fifth of the
   sample is continued as an exponential tail (mean excess over a threshold; Pickands 1975). For a tail heavier than that the
   upper end is too low; `docs/results/bench-statistics.md` says from how many requests on it is not needed.
4. A run that does not know its own level does not know its quantiles better: if all latencies were off by a factor as large as
   the mean may be, so would be the quantile. The upper end holds that factor.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from octavo.bench.statistics.dependence import Array, block_length, inflation
from octavo.bench.statistics.mean import mean_error, upper
from octavo.bench.statistics.working_model import model_inflation, normal_scores
from octavo.bench.types import Interval

UPPER_SHARE = 0.2  # of the sample, from which the tail is continued
UNRESOLVED = 20.0  # tau is raised by (this many, fewer towards the median) * tau / n
CLUSTERS = 1.5  # the p90's measured tau over the model's, from which on the tail is taken to cluster as in a queue


def quantile_intervals(values: Array, probabilities: tuple[float, ...], confidence: float = 0.95) -> list[Interval]:
    """One interval per probability. No values: all None; one: no interval; identical ones: zero width.

    The estimate is Hazen's quantile (order statistic p n + 1/2, interpolated; ``numpy.quantile(..., method="hazen")``).
    """
    size = len(values)
    if size == 0:
        return [Interval(None, None, None)] * len(probabilities)
    ordered = np.sort(values)
    points = [float(np.quantile(ordered, p, method="hazen")) for p in probabilities]
    if size == 1:
        return [Interval(point, None, None) for point in points]
    if ordered[0] == ordered[-1]:
        return [Interval(float(ordered[0]), float(ordered[0]), float(ordered[0]))] * len(probabilities)
    freedom = max(3.0, size / block_length(normal_scores(values)) - 1)
    width = float(stats.t.ppf((1 + confidence) / 2, freedom))  # standard errors
    miss = 2 * float(stats.norm.sf(width))
    center = float(values.mean())
    scale = upper(values, center, width * mean_error(values, block_length(values))) / center if center > 0 else 1.0
    found = []
    for p, point, tau in zip(probabilities, points, inflations(values, probabilities), strict=True):
        worth = max(2.0, size / (tau * (1 + min(UNRESOLVED, 2.5 / (1 - p)) * tau / size)))
        under, over = worth * p + 0.5, worth * (1 - p) + 0.5  # Jeffreys' interval of a binomial share
        low = sample_quantile(ordered, float(stats.beta.ppf(miss / 2, under, over)), worth)
        high = sample_quantile(ordered, float(stats.beta.isf(miss / 2, under, over)), worth)
        found.append(Interval(point, min(low, point), max(high, point, point * scale)))
    return found


def sample_quantile(ordered: Array, probability: float, worth: float) -> float:
    """Hazen's quantile; where a sample of ``worth`` independent values would have none but its largest beyond it, at least
    u + e log(P(X > u)/(1 - p)), e the mean excess over u."""
    size = len(ordered)
    inside = float(np.quantile(ordered, probability, method="hazen"))
    if probability * worth + 0.5 <= worth - 1:
        return inside
    above = min(size - 1, max(10, int(size * UPPER_SHARE)))
    threshold = float(ordered[-above - 1])
    excess = float(ordered[-above:].mean()) - threshold
    return max(inside, threshold + excess * float(np.log(above / size / max(1 - probability, 1e-12))))


def inflations(values: Array, probabilities: tuple[float, ...]) -> list[float]:
    """tau >= 1 of each p-quantile: this many values in a row say as much about it as one independent value."""
    if len(values) < 2 or values.min() == values.max():
        return [1.0] * len(probabilities)
    *points, p90 = np.quantile(values, (*probabilities, 0.9), method="hazen").tolist()
    *modelled, modelled90 = model_inflation(values, (*probabilities, 0.9))
    measured90 = _measured(values, p90)
    taus = []
    for p, point, model in zip(probabilities, points, modelled, strict=True):
        tau = max(model, _measured(values, point))
        if p > 0.9:
            clustering = measured90 / modelled90
            tau = max(tau, model * clustering, measured90 if clustering > CLUSTERS else 1.0)
        taus.append(min(tau, len(values) / 2))
    return taus


def _measured(values: Array, level: float) -> float:
    return inflation((values <= level).astype(np.float64))
