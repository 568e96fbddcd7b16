"""Validity of a run: the client's own send lag and stalls, and the verdict with its reason."""

from __future__ import annotations

import msgspec
import numpy as np

from octavo.bench.client.options import ClientOptions
from octavo.bench.types import Outcome, RequestRecord


class Stalls(msgspec.Struct, kw_only=True):
    """How late the client's own ticks were. While the loop stands still, nothing is sent and arrivals get late stamps."""

    total_s: float = 0.0
    worst_s: float = 0.0
    worst_at_s: float = 0.0

    def note(self, late_s: float, now_s: float, least_s: float) -> None:
        """``late_s`` below ``least_s`` is the timers' own grain."""
        if late_s > least_s:
            self.total_s += late_s
        if late_s > self.worst_s:
            self.worst_s, self.worst_at_s = late_s, now_s


class Health(msgspec.Struct, kw_only=True):
    """What the generator knows beside the records."""

    stalls: Stalls
    duration_s: float
    num_connections: int
    limit: str | None = None  # what kept requests from being sent in time
    stopped: str | None = None  # why the run did not come to its planned end


def verdict(records: list[RequestRecord], health: Health, options: ClientOptions) -> str | None:
    """None: valid. Else the reasons, the gravest first, in one line."""
    reasons = [
        health.stopped,
        _no_response(records),
        _limit(health),
        _lag(records, options),
        _stalled(health, options),
    ]
    return "; ".join(reason for reason in reasons if reason) or None


def lags_s(records: list[RequestRecord]) -> list[float]:
    """The client's lag, of the requests that were sent."""
    return [record.client_lag_s for record in records if not record.not_sent]


def _no_response(records: list[RequestRecord]) -> str | None:
    if any(record.outcome is Outcome.OK for record in records):
        return None
    error = next((record.error for record in records if record.error), None)
    return f"no request was answered{f' (first error: {error})' if error else ''}"


def _limit(health: Health) -> str | None:
    if health.limit is None:
        return None
    return f"{health.limit} and requests waited in the client; allow more or lower the load"


def _lag(records: list[RequestRecord], options: ClientOptions) -> str | None:
    """Send lag p99 against max(a fixed bound, a share of the median TTFT)."""
    lags = lags_s(records)
    if not lags:
        return None
    p99_s = float(np.quantile(lags, 0.99))
    ttfts = [r.uncorrected_ttft_s for r in records if r.outcome is Outcome.OK and r.uncorrected_ttft_s is not None]
    median_s = float(np.median(ttfts)) if ttfts else 0.0
    limit_s = max(options.max_lag_p99_s, options.max_lag_ttft_share * median_s)
    if p99_s <= limit_s:
        return None
    return (
        f"the client could not keep up: it sent late by {p99_s * 1e3:.1f} ms at p99, the limit is {limit_s * 1e3:.1f} ms "
        f"(max of {options.max_lag_p99_s * 1e3:g} ms and {options.max_lag_ttft_share:.0%} of the median TTFT); "
        "lower the rate or give the client a core of its own"
    )


def _stalled(health: Health, options: ClientOptions) -> str | None:
    stalls = health.stalls
    if stalls.worst_s > options.max_stall_s:
        return (
            f"the client stood still for {stalls.worst_s * 1e3:.0f} ms at {stalls.worst_at_s:.1f} s, "
            f"the limit is {options.max_stall_s * 1e3:.0f} ms; give it a core of its own"
        )
    if health.duration_s > 0 and stalls.total_s > options.max_stall_share * health.duration_s:
        return (
            f"the client stood still for {stalls.total_s / health.duration_s:.1%} of the run, "
            f"the limit is {options.max_stall_share:.0%}; give it a core of its own"
        )
    return None
