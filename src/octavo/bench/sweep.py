"""Load sweep: one run per rate, the knee of the curve, and the highest rate that attains the SLO.

Takes a callable that measures one rate, so the search knows nothing of servers and can be tried on simulated ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from octavo.bench.slo_attainment import judge_slo, meets, responses_s, slo_of
from octavo.bench.statistics.knee import Knee, find_knee
from octavo.bench.types import Outcome, RequestRecord, Run, Slo, SloCheck
from octavo.errors import ConfigError

RunAt = Callable[[float], Run]


@dataclass(frozen=True)
class Search:
    """How ``find_max_rate`` searches."""

    share: float = 0.99  # of requests that must attain their SLOs; failed ones do not
    tolerance: float = 0.05  # stop when the lowest failing rate is at most this much above the highest passing one
    max_repeats: int = 3  # runs at one rate while its share is too close to ``share`` to call
    confidence: float = 0.95


@dataclass(frozen=True)
class Trial:
    """What the runs at one rate showed together."""

    rate: float
    num_runs: int
    num_requests: int
    share: float  # that met the SLO
    share_low: float
    share_high: float
    met: bool
    reason: str = ""  # why it is not met, where that is not the share
    slo_check: SloCheck | None = None  # whether that share is not only observed but shown of the server


@dataclass(frozen=True)
class MaxRate:
    """``rate`` is the highest that met the SLO, None if even the lowest did not; the true edge lies between it and ``beyond``,
    the lowest that did not (None: all did)."""

    rate: float | None
    beyond: float | None
    trials: list[Trial] = field(default_factory=list)

    @property
    def slo_check(self) -> SloCheck | None:
        """The binomial check at ``rate``."""
        return next((trial.slo_check for trial in self.trials if trial.rate == self.rate), None)


def sweep(run_at: RunAt, rates: Sequence[float]) -> list[Run]:
    """One run per rate, from the lowest: what an overload leaves behind in the server meets no lower rate."""
    return [run_at(rate) for rate in ascending(rates)]


def ascending(rates: Sequence[float]) -> list[float]:
    """Each once, the lowest first. Raises ``ConfigError`` for none, or one that is not a number above zero."""
    if not rates or not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise ConfigError(f"rates={list(rates)}: a sweep takes one or more rates above zero, e.g. --rates 1,2,4,8")
    return sorted(set(rates))


def knee_of(runs: Sequence[Run]) -> Knee | None:
    """The load (answered requests/s) of greatest power with the median end-to-end latency; None for fewer than three valid."""
    points = [
        (run.summary.request_rate_rps.value, run.summary.e2e_s.p50.value)
        for run in runs
        if run.valid and run.summary.request_rate_rps.value and run.summary.e2e_s.p50.value
    ]
    return find_knee([load or 0.0 for load, _ in points], [latency or 0.0 for _, latency in points])


def find_max_rate(run_at: RunAt, slo: Slo, rates: Sequence[float], search: Search | None = None) -> MaxRate:
    """Up the given rates until one does not meet the SLO, then geometric bisection between it and the one before; runs are
    repeated where noise could decide. A request's own SLO goes before ``slo``.

    Bisection tries about log2(ln(high/low) / tolerance) rates. Raises ``ConfigError`` for no rates or one that is not above zero.
    """
    search = search or Search()
    low, trials = 0.0, []
    for high in ascending(rates):
        trials.append(_try(run_at, high, slo, search))
        if not trials[-1].met:
            break
        low = high
    if trials[-1].met:
        return MaxRate(low, None, trials)
    if low == 0:
        return MaxRate(None, high, trials)
    while high / low > 1 + search.tolerance:
        middle = math.sqrt(low * high)
        trials.append(_try(run_at, middle, slo, search))
        low, high = (middle, high) if trials[-1].met else (low, middle)
    return MaxRate(low, high, trials)


def _try(run_at: RunAt, rate: float, slo: Slo, search: Search) -> Trial:
    """Runs at one rate until its share is clear of the one asked for, or ``max_repeats`` are done."""
    met: list[bool] = []
    times_s: list[float] = []
    for number in range(1, search.max_repeats + 1):
        run = run_at(rate)
        if not run.valid:
            return Trial(rate, number, len(met), 0.0, 0.0, 1.0, False, f"not valid: {run.invalid_reason}")
        records = _steady(run)
        if run.summary.stationary is False and _grows(records):
            return Trial(rate, number, len(met), 0.0, 0.0, 1.0, False, "not sustained: the latency kept growing")
        met += [meets(one, slo_of(one, slo)) for one in records]
        times_s += responses_s(records).tolist()
        if not met:
            return Trial(
                rate, number, 0, 0.0, 0.0, 1.0, False, "no request was answered or failed: the run was too short"
            )
        trial = _judge((rate, number), met, judge_slo(met, times_s, search.share), search)
        if not trial.share_low <= search.share <= trial.share_high:
            break
    return trial


def _steady(run: Run) -> list[RequestRecord]:
    """Requests after the warm-up, failed ones included, in the order of intended sends."""
    after = [one for one in run.records if one.intended_s >= run.summary.warm_up_s]
    return sorted((one for one in after if one.outcome is not Outcome.CANCELLED), key=lambda one: one.intended_s)


def _grows(records: Sequence[RequestRecord]) -> bool:
    """Whether the later half of the responses was the slower one (a queue that empties is not a reason to refuse a rate)."""
    latencies = [one.e2e_s for one in records if one.outcome is Outcome.OK and one.e2e_s is not None]
    half = len(latencies) // 2
    return half > 0 and float(np.median(latencies[half:])) > float(np.median(latencies[:half]))


def _judge(where: tuple[float, int], met: Sequence[bool], check: SloCheck, search: Search) -> Trial:
    """Wilson's interval (1927) of the share, for as many independent requests as these correlated ones are worth."""
    size, share = len(met), sum(met) / len(met)
    worth = max(1, round(check.effective_requests))
    bounds = stats.binomtest(round(share * worth), worth).proportion_ci(search.confidence, method="wilson")
    return Trial(*where, size, share, float(bounds.low), float(bounds.high), share >= search.share, slo_check=check)
