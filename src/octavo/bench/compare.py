"""Comparison of labels over repeated runs, taken A B A B: ratio of each metric, its interval, and a permutation test.

The unit is the run (see `statistics/permutation.py` for why). The first label is the baseline; every other one is compared with
it in every metric, and Holm's correction covers all of these tests together.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import numpy as np
from scipy import stats

from octavo.bench.compare_warnings import warnings_of
from octavo.bench.statistics.dependence import Array
from octavo.bench.statistics.effect import ratio_interval
from octavo.bench.statistics.permutation import holm, permutation_p_value, smallest_p_value
from octavo.bench.types import Interval, Run, Slo, Summary
from octavo.errors import BenchError, ConfigError

LEVEL = 0.05


@dataclass(frozen=True)
class Metric:
    name: str
    of: Callable[[Summary], Interval]
    unit: str
    more_is_better: bool = False


LATENCIES = ("ttft_s", "tpot_s", "e2e_s", "inter_chunk_s")
STATISTICS = ("mean", "p50", "p90", "p99")
RATES: Mapping[str, str] = MappingProxyType(
    {"output_tokens_per_s": "tokens/s", "total_tokens_per_s": "tokens/s", "goodput_rps": "requests/s"}
)


def metric(name: str) -> Metric:
    """``ttft_s.p50``, ``output_tokens_per_s``, ...: any latency's statistic or rate of a summary. Raises ``ConfigError``."""
    if name in RATES:
        return Metric(name, lambda summary: getattr(summary, name), RATES[name], more_is_better=True)
    known = [f"{latency}.{statistic}" for latency in LATENCIES for statistic in STATISTICS]
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *RATES], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"unknown metric {name!r}; {hint}known: {', '.join(RATES)}, and {', '.join(LATENCIES)} with "
            f".{', .'.join(STATISTICS)}",
            param="metrics",
        )
    latency, _, statistic = name.partition(".")
    return Metric(name, lambda summary: getattr(getattr(summary, latency), statistic), "s")


METRICS = tuple(
    metric(name)
    for name in ("ttft_s.p50", "ttft_s.p99", "tpot_s.p50", "e2e_s.p50", "output_tokens_per_s", "goodput_rps")
)


class MetricComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one label against the baseline. ``verdict``: "faster", "slower" or "no difference shown"."""

    metric: str
    unit: str
    more_is_better: bool
    baseline: str
    label: str
    baseline_values: list[float]  # one per run
    values: list[float]
    ratio: Interval  # label / baseline, of the geometric means over runs; None where a value is zero
    p_value: float
    corrected_p_value: float  # Holm's, over all rows
    verdict: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    baseline: str
    num_runs: dict[str, int]
    rows: list[MetricComparison]
    warnings: list[str]
    left_out: dict[str, str] = {}  # metric -> why it was not tested
    level: float = LEVEL


def compare(
    runs_by_label: Mapping[str, Sequence[Run]], *, metrics: Sequence[Metric] | None = None, seed: int = 0
) -> Comparison:
    """The first label is the baseline. Invalid runs are left out, with a warning. Without ``metrics``: those of METRICS that say
    something new. Fewer metrics show smaller differences.

    Raises ``ConfigError`` for fewer than two labels, ``BenchError`` for a label without a valid run.
    """
    if len(runs_by_label) < 2:
        raise ConfigError(f"compare takes two labels or more, got {list(runs_by_label)}; give results of A and of B")
    valid = {label: [run for run in runs if run.valid] for label, runs in runs_by_label.items()}
    for label, runs in valid.items():
        if not runs:
            reasons = {run.invalid_reason or "no reason given" for run in runs_by_label[label]}
            raise BenchError(
                f"{label!r} has no valid run ({'; '.join(sorted(reasons)) or 'no run at all'}); measure again"
            )
    baseline, *others = valid
    left_out = {} if metrics is not None else _nothing_new([run for runs in valid.values() for run in runs])
    tested = [
        (metric, label, _values(metric, valid[baseline]), _values(metric, valid[label]))
        for label in others
        for metric in metrics or METRICS
        if metric.name not in left_out
    ]
    tested = [one for one in tested if len(one[2]) and len(one[3])]
    p_values = [permutation_p_value(_scaled(base, other), _scaled(other, base), seed) for *_, base, other in tested]
    rows = []
    for (metric, label, base, other), p_value, corrected in zip(tested, p_values, holm(p_values), strict=True):
        rows.append(
            MetricComparison(
                metric=metric.name,
                unit=metric.unit,
                more_is_better=metric.more_is_better,
                baseline=baseline,
                label=label,
                baseline_values=base.tolist(),
                values=other.tolist(),
                ratio=_ratio(metric, (valid[baseline], valid[label]), (base, other), seed),
                p_value=p_value,
                corrected_p_value=corrected,
                verdict=_verdict(metric, float(other.mean() - base.mean()), corrected),
            )
        )
    counts = {label: len(runs) for label, runs in valid.items()}
    warnings = warnings_of(runs_by_label) + _too_few(counts, len(rows))
    return Comparison(baseline=baseline, num_runs=counts, rows=rows, warnings=warnings, left_out=left_out)


def runs_needed(num_tests: int, level: float = LEVEL) -> int:
    """Runs per label from which on a difference in one of that many corrected tests can be shown at all: 5 for up to 6."""
    size = 1
    while smallest_p_value(size, size) * num_tests > level:
        size += 1
        if size > 16:
            break
    return size


def _nothing_new(runs: Sequence[Run]) -> dict[str, str]:
    """Metric -> why it need not be tested: every test too many takes power from the others."""
    found = {}
    if all(run.summary.tpot_s.p50.value is not None for run in runs):
        found["e2e_s.p50"] = "it is TTFT + (n - 1) TPOT"
    if kept_up := all(_kept_up(run) for run in runs):
        found["output_tokens_per_s"] = "an open loop that keeps up completes what it is offered"
    everything_good = all(run.summary.goodput_rps.value == run.summary.request_rate_rps.value for run in runs)
    if everything_good and (kept_up or all(run.slo == Slo() for run in runs)):
        found["goodput_rps"] = "all answered requests attained their SLOs"
    return found


def _kept_up(run: Run) -> bool:
    """An open loop in which no queue grew and nothing failed."""
    counts = run.requests
    closed = run.arrivals.partition(":")[0] == "closed"
    return not closed and run.summary.stationary is True and counts.failed == counts.timed_out == 0


def _values(metric: Metric, runs: Sequence[Run]) -> Array:
    values = (metric.of(run.summary).value for run in runs)
    return np.array([value for value in values if value is not None], dtype=np.float64)


def _scaled(values: Array, others: Array) -> Array:
    """Logarithms, so that ratios are compared; the values themselves if any of either is zero."""
    return np.log(values) if min(values.min(), others.min()) > 0 else values


def _verdict(metric: Metric, difference: float, corrected: float) -> str:
    if corrected > LEVEL or difference == 0:
        return "no difference shown"
    return "faster" if (difference > 0) == metric.more_is_better else "slower"


def _ratio(
    metric: Metric,
    runs: tuple[Sequence[Run], Sequence[Run]],
    values: tuple[Array, Array],
    seed: int,
) -> Interval:
    base, other = values
    if min(base.min(), other.min()) <= 0:
        return Interval(None, None, None)
    found = ratio_interval(base, other, seed)
    if found.low is not None or found.value is None:
        return found
    variances = [_inside_variance(metric, one) for one in runs]
    if None in variances:
        return found
    half = float(stats.norm.ppf(0.975)) * math.sqrt(sum(one for one in variances if one is not None))
    return Interval(found.value, found.value * math.exp(-half), found.value * math.exp(half))


def _inside_variance(metric: Metric, runs: Sequence[Run]) -> float | None:
    """Variance of the mean logarithm by the runs' own intervals: what is known with too few runs to see how they differ."""
    intervals = [metric.of(run.summary) for run in runs]
    logs = [math.log(one.high / one.low) for one in intervals if one.low and one.high]
    if len(logs) < len(intervals):
        return None
    return sum((one / (2 * float(stats.norm.ppf(0.975)))) ** 2 for one in logs) / len(logs) ** 2


def _too_few(counts: Mapping[str, int], num_tests: int) -> list[str]:
    needed = runs_needed(num_tests)
    baseline, *others = counts
    short = [label for label in others if smallest_p_value(counts[baseline], counts[label]) * num_tests > LEVEL]
    if not short:
        return []
    have = ", ".join(f"{label} {counts[label]}" for label in (baseline, *short))
    text = (
        f"too few runs to show any difference in {num_tests} tests (valid runs: {have}); take {needed} of each, A B A B"
    )
    return [f"{text}. With fewer than 4 of each, ratio intervals know only the noise inside these runs"]
