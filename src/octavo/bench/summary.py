"""Summary of a run's records: the steady state, every metric with its 95 % confidence interval.

Failed and timed-out requests are counted and violate their SLOs; they are never averaged into a latency. ``FORMULAS`` says in
words what each metric is; it travels in the result file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from octavo.bench.rates import (
    Window,
    num_output_tokens,
    output_arrivals,
    request_arrivals,
    steady_window,
    total_arrivals,
)
from octavo.bench.slo_attainment import check_slos, meets, responses_s, seconds, slo_of
from octavo.bench.statistics.dependence import Array, inflation
from octavo.bench.statistics.fairness import jain
from octavo.bench.statistics.mean import mean_interval
from octavo.bench.statistics.quantile import inflations, quantile_intervals
from octavo.bench.statistics.trend import slope_p_value
from octavo.bench.statistics.warm_up import warm_up_length
from octavo.bench.types import Counts, Interval, Latency, Outcome, RequestRecord, Slo, Summary

TREND_P_VALUE = 0.01  # below it a run is called not stationary
FEWEST_EFFECTIVE = 40  # independent requests; with fewer, 95 % intervals were seen to cover 64-90 %

FORMULAS = {
    "ttft_s": "time to first token = first non-empty token - intended send",
    "uncorrected_ttft_s": "first non-empty token - actual send; hides the time a request waited in the client",
    "tpot_s": "time per output token = (e2e - ttft) / (n - 1), n = output tokens of the server's usage; n >= 2",
    "e2e_s": "end of the response - intended send",
    "uncorrected_e2e_s": "end of the response - actual send",
    "inter_chunk_s": "time between two chunks with text of one response, never divided by the tokens in them",
    "tokens_per_chunk": "output tokens / chunks with text; above 1 under speculative decoding, where tpot_s < inter_chunk_s",
    "goodput_rps": "requests that ended in the steady-state window and met all their SLOs (their own or the run's; without SLO: "
    "answered) / window",
    "request_rate_rps": "requests answered in the steady-state window / window",
    "output_tokens_per_s": "output tokens that arrived in the steady-state window / window",
    "total_tokens_per_s": "output tokens + prompt tokens (when their first output token came) in the window / window",
    "window": "end of the warm-up .. last intended send (.. last answer if less than half was answered by then)",
    "jain_fairness": "(sum x)^2 / (n sum x^2), x = output tokens of each tenant (Jain 1984)",
    "warm_up_s": "MSER-5 (White 1997) on TTFT, else E2E, in the order of intended sends; requests due before are in no latency",
    "stationary": f"Mann-Kendall on batch means of TTFT, else E2E, p >= {TREND_P_VALUE}",
    "mean": "95 % interval: studentised moving-block bootstrap (Künsch 1989; Götze & Künsch 1996), blocks of Politis & White "
    "(2004, 2009), lugsail standard error (Vats & Flegal 2022), raised for few effective requests",
    "quantiles": "Hazen's; 95 % interval: Woodruff (1952) for the effective number of requests under autocorrelation; upper end "
    "at least as far up as the mean's",
    "rates": "95 % interval: that of a mean, over equal bins of the window",
    "effective_mean": "num / tau, tau = long-run variance / variance: independent requests that say as much about the mean",
    "effective_p99": "num / tau of the p99: independent requests that say as much about it",
    "promises": "binomial check (Clopper & Pearson 1934, as in MLPerf Inference): attained if at least `share` of requests are "
    "within the limit with `confidence`, counted as `effective_requests`; failed requests are over",
}


def summarise(records: Sequence[RequestRecord], slo: Slo, *, seed: int) -> Summary:
    """``slo`` holds for requests that bring none of their own. Records may come in any order; cancelled ones count nowhere. The
    same seed gives the same intervals."""
    counted = sorted((one for one in records if one.outcome is not Outcome.CANCELLED), key=lambda one: one.intended_s)
    answered = [one for one in counted if one.outcome is Outcome.OK]
    warm_up_s = _warm_up_s(answered)
    steady = [one for one in answered if one.intended_s >= warm_up_s]
    window = steady_window(counted, answered, warm_up_s)
    good = [one for one in answered if meets(one, slo_of(one, slo))]
    chunks = sum(len(one.chunk_s) for one in steady)
    responses = responses_s(steady)
    p_value = slope_p_value(responses)
    scope = Scope(window, warm_up_s, seed)
    return Summary(
        ttft_s=_latency(steady, lambda one: one.ttft_s, seed),
        tpot_s=_latency(steady, lambda one: one.tpot_s, seed),
        e2e_s=_latency(steady, lambda one: one.e2e_s, seed),
        inter_chunk_s=latency(_chunk_gaps(steady), seed),
        uncorrected_ttft_s=_latency(steady, lambda one: one.uncorrected_ttft_s, seed),
        uncorrected_e2e_s=_latency(steady, lambda one: one.uncorrected_e2e_s, seed),
        goodput_rps=request_arrivals(good).rate(window, seed),
        output_tokens_per_s=output_arrivals(answered).rate(window, seed),
        total_tokens_per_s=total_arrivals(answered).rate(window, seed),
        request_rate_rps=request_arrivals(answered).rate(window, seed),
        tokens_per_chunk=sum(num_output_tokens(one) for one in steady if one.chunk_s) / chunks if chunks else None,
        jain_fairness=_fairness(counted, steady),
        groups=_groups(counted, {one.index for one in good}, scope),
        warm_up_s=warm_up_s,
        stationary=None if p_value is None else p_value >= TREND_P_VALUE,
        slope_p_value=p_value,
        slo_checks=check_slos([one for one in counted if one.intended_s >= warm_up_s], slo),
        warnings=_warnings(responses),
    )


def count(records: Sequence[RequestRecord], warm_up_s: float = 0.0) -> Counts:
    """Requests by outcome; ``warm_up``: the answered ones that were due before ``warm_up_s``."""
    outcomes = [one.outcome for one in records]
    early = sum(1 for one in records if one.outcome is Outcome.OK and one.intended_s < warm_up_s)
    return Counts(
        ok=outcomes.count(Outcome.OK),
        failed=outcomes.count(Outcome.FAILED),
        timed_out=outcomes.count(Outcome.TIMED_OUT),
        warm_up=early,
    )


def latency(values: Array, seed: int) -> Latency:
    """``values`` in the order in which they were observed, seconds."""
    p50, p90, p99 = quantile_intervals(values, (0.5, 0.9, 0.99))
    mean = mean_interval(values, seed)
    low = None if mean.low is None else max(mean.low, min(0.0, float(values.min())))  # of two values, t goes below zero
    return Latency(
        mean=Interval(mean.value, low, mean.high),
        p50=p50,
        p90=p90,
        p99=p99,
        num=len(values),
        effective_mean=len(values) / inflation(values) if len(values) else None,
        effective_p99=len(values) / inflations(values, (0.99,))[0] if len(values) else None,
    )


@dataclass(frozen=True)
class Scope:
    """What a group's metrics are taken over."""

    window: Window
    warm_up_s: float
    seed: int


def _latency(records: Sequence[RequestRecord], of: Callable[[RequestRecord], float | None], seed: int) -> Latency:
    return latency(seconds([value for one in records if (value := of(one)) is not None]), seed)


def _warm_up_s(answered: Sequence[RequestRecord]) -> float:
    cut = warm_up_length(responses_s(answered))
    return answered[cut].intended_s if cut else 0.0


def _warnings(responses: Array) -> list[str]:
    if not len(responses):
        return []
    tau = inflation(responses)
    effective = len(responses) / tau
    if effective >= FEWEST_EFFECTIVE:
        return []
    return [
        f"{len(responses)} requests are worth {effective:.0f} independent ones: the intervals may be too narrow; "
        f"measure about {math.ceil(FEWEST_EFFECTIVE * tau / len(responses))} times as long, or repeat runs"
    ]


def _chunk_gaps(records: Sequence[RequestRecord]) -> Array:
    """Gaps between the chunks of each response, in the order in which they ended, over all responses."""
    times = [np.asarray(one.chunk_s, dtype=np.float64) for one in records if len(one.chunk_s) > 1]
    if not times:
        return np.zeros(0)
    ends, gaps = np.concatenate([one[1:] for one in times]), np.concatenate([np.diff(one) for one in times])
    return seconds(gaps[np.argsort(ends, kind="stable")])


def _fairness(counted: Sequence[RequestRecord], steady: Sequence[RequestRecord]) -> float | None:
    tokens = {one.tenant: 0 for one in counted}
    for one in steady:
        tokens[one.tenant] += num_output_tokens(one)
    return jain(list(tokens.values()))


def _groups(counted: Sequence[RequestRecord], good: set[int], scope: Scope) -> dict[str, dict[str, Any]]:
    """``class:<name>`` and ``tenant:<name>``, as plain data. Requests without a name form no group."""
    members: dict[str, list[RequestRecord]] = {}
    for one in counted:
        for kind, name in (("class", one.service_class), ("tenant", one.tenant)):
            if name:
                members.setdefault(f"{kind}:{name}", []).append(one)
    return {name: _group(members[name], good, scope) for name in sorted(members)}


def _group(records: Sequence[RequestRecord], good: set[int], scope: Scope) -> dict[str, Any]:
    answered = [one for one in records if one.outcome is Outcome.OK]
    steady = [one for one in answered if one.intended_s >= scope.warm_up_s]
    met = [one for one in answered if one.index in good]
    metrics: dict[str, Counts | Interval | Latency | float | int | None] = {
        "requests": count(records, scope.warm_up_s),
        "slo_met_share": len(met) / len(records) if records else None,
        "goodput_rps": request_arrivals(met).rate(scope.window, scope.seed),
        "output_tokens_per_s": output_arrivals(answered).rate(scope.window, scope.seed),
        "ttft_s": _latency(steady, lambda one: one.ttft_s, scope.seed),
        "tpot_s": _latency(steady, lambda one: one.tpot_s, scope.seed),
        "e2e_s": _latency(steady, lambda one: one.e2e_s, scope.seed),
    }
    plain: dict[str, Any] = msgspec.to_builtins(metrics)
    return plain
