"""SLO attainment: per request, and the share of requests within the SLO as a tested statement on the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from octavo.bench.rates import num_output_tokens
from octavo.bench.statistics.binomial_check import check_share
from octavo.bench.statistics.dependence import Array, inflation
from octavo.bench.statistics.quantile import inflations
from octavo.bench.types import Outcome, RequestRecord, Slo, SloCheck

SHARE = 0.99  # "TTFT <= 500 ms" as a statement on a server means its p99
CONFIDENCE = 0.95
Limit = Callable[[RequestRecord], bool | None]  # whether a request is within it; None: it has no such latency to judge


def slo_of(record: RequestRecord, slo: Slo) -> Slo:
    """A request's own SLO goes before ``slo``, the run's."""
    return slo if record.slo is None else record.slo


def meets(record: RequestRecord, slo: Slo) -> bool:
    """Whether a request attained every target of ``slo``. One that failed violates them; a response of one token has no TPOT."""
    if record.outcome is not Outcome.OK:
        return False
    return (
        _within(record.ttft_s, slo.ttft_s)
        and _within(record.e2e_s, slo.e2e_s)
        and (num_output_tokens(record) < 2 or _within(_tpot_s(record), slo.tpot_s))
    )


def check_slos(records: Sequence[RequestRecord], slo: Slo, share: float = SHARE) -> list[SloCheck]:
    """One check for each limit of ``slo``, over the requests that bring no SLO of their own; and "all", every target of
    every request, where that says more. ``records`` in the order of intended sends, failed ones included."""
    common = [one for one in records if one.slo is None]
    latencies: tuple[tuple[str, float | None, Callable[[RequestRecord], float | None]], ...] = (
        ("ttft_s", slo.ttft_s, lambda one: one.ttft_s),
        ("tpot_s", slo.tpot_s, _tpot_s),
        ("e2e_s", slo.e2e_s, lambda one: one.e2e_s),
    )
    found = []
    for what, limit_s, of in latencies:
        if limit_s is None:
            continue
        judged = [one for one in common if one.outcome is not Outcome.OK or of(one) is not None or what != "tpot_s"]
        met = [one.outcome is Outcome.OK and _within(of(one), limit_s) for one in judged]
        times = [time for one in judged if one.outcome is Outcome.OK and (time := of(one)) is not None]
        if judged:
            found.append(judge_slo(met, times, share, what=what, limit_s=limit_s))
    if len(found) == 1 and len(common) == len(records):
        return found
    if any(slo_of(one, slo) != Slo() for one in records):
        met = [meets(one, slo_of(one, slo)) for one in records]
        found.append(judge_slo(met, responses_s(records), share))
    return found


def judge_slo(
    met: Sequence[bool],
    times_s: Sequence[float] | Array,
    share: float = SHARE,
    *,
    what: str = "all",
    limit_s: float | None = None,
) -> SloCheck:
    """``met``, one per request, and the latencies behind them, both in the order of intended sends. Correlated requests count
    for fewer: by how much the misses cluster, or where there are hardly any, the latencies near their own ``share``-quantile."""
    misses = np.array([not one for one in met], dtype=np.float64)
    tau = max(inflation(misses), *inflations(seconds(times_s), (share,)))
    check = check_share(len(met), int(misses.sum()), share, CONFIDENCE, worth=1 / tau)
    return SloCheck(
        what=what,
        limit_s=limit_s,
        share=share,
        confidence=CONFIDENCE,
        attained=check.attained,
        num_requests=check.num_requests,
        num_over=check.num_over,
        effective_requests=check.num_requests / tau,
        share_low=check.share_low,
        num_needed=check.num_needed,
    )


def seconds(values: Sequence[float] | Array) -> Array:
    """To the nanosecond: what is beyond is rounding of differences of times, and would pass for noise or for a trend."""
    return np.asarray(values, dtype=np.float64).round(9)


def responses_s(records: Sequence[RequestRecord]) -> Array:
    """TTFT of the answered ones, or E2E where a server does not stream: the series that shows a queue grow."""
    answered = [one for one in records if one.outcome is Outcome.OK]
    streamed = all(one.ttft_s is not None for one in answered)
    return seconds([(one.ttft_s if streamed else one.e2e_s) or 0.0 for one in answered])


def _tpot_s(record: RequestRecord) -> float | None:
    """Of a server without usage, by its chunks."""
    tokens = num_output_tokens(record)
    if record.tpot_s is None and record.first_token_s is not None and record.end_s is not None and tokens > 1:
        return (record.end_s - record.first_token_s) / (tokens - 1)
    return record.tpot_s


def _within(value: float | None, limit: float | None) -> bool:
    return limit is None or (value is not None and value <= limit)
