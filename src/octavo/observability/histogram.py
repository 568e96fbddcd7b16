"""Prometheus histogram that costs one bisection an observation.

``prometheus_client`` takes a lock and walks its buckets for every observation; at tens of thousands of tokens a second
that shows. This one is fed from one thread (the event loop) and is exported as an ordinary Prometheus histogram.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily

# 0.5 ms to five minutes: fine enough for a step on a GPU, wide enough for a long response on a laptop.
TIME_BUCKETS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5,
    0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
TOKEN_BUCKETS = tuple(float(2**power) for power in range(18))  # 1 .. 131,072


class Histogram:
    """Counts per bucket (upper bounds inclusive, as Prometheus has it), their sum, and the export."""

    def __init__(self, name: str, help_text: str, buckets: Sequence[float] = TIME_BUCKETS_S) -> None:
        self._name = name
        self._help = help_text
        self._bounds = tuple(buckets)
        self._labels = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count ``value`` as seen ``count`` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def collect(self) -> HistogramMetricFamily:
        """The histogram as Prometheus' library exports it."""
        family = HistogramMetricFamily(self._name, self._help)
        family.add_metric([], list(zip(self._labels, accumulate(self._counts), strict=True)), self._sum)
        return family
