"""Progress counters of a run, and the observer they are reported to."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from typing import Protocol

import msgspec

from octavo.bench.types import Outcome, RequestRecord

RECENT = 500  # requests over which "so far" is taken


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of a run. Latencies are of the last ``RECENT`` answered requests."""

    elapsed_s: float
    duration_s: float | None
    planned: int
    sent: int
    in_flight: int
    ok: int
    failed: int
    timed_out: int
    rate_rps: float  # requests answered per second, over the last few seconds
    output_tokens_per_s: float
    ttft_p50_s: float | None
    tpot_p50_s: float | None
    lag_p99_s: float | None
    last_error: str | None


class Observer(Protocol):
    """Told about a run while it goes on, in the client's own loop: what takes long here disturbs the measurement."""

    def progress(self, now: Progress) -> None: ...


class Silent:
    """Looks away."""

    def progress(self, now: Progress) -> None:
        pass


class Tally:
    """Running counts of a generator."""

    def __init__(self, planned: int, duration_s: float | None) -> None:
        self._planned, self._duration_s = planned, duration_s
        self._outcomes: Counter[Outcome] = Counter()
        self._ttft: deque[float] = deque(maxlen=RECENT)
        self._tpot: deque[float] = deque(maxlen=RECENT)
        self._lag: deque[float] = deque(maxlen=RECENT)
        self._ends: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._last_error: str | None = None
        self.sent = 0

    def add(self, record: RequestRecord) -> None:
        self._outcomes[record.outcome] += 1
        if not record.not_sent:
            self._lag.append(record.client_lag_s)
        if record.error is not None:
            self._last_error = record.error
        if record.outcome is not Outcome.OK:
            return
        if record.ttft_s is not None:
            self._ttft.append(record.ttft_s)
        if record.tpot_s is not None:
            self._tpot.append(record.tpot_s)
        if record.end_s is not None:
            self._ends.append((record.end_s, record.output_tokens or 0))

    def progress(self, now_s: float, in_flight: int) -> Progress:
        span_s = now_s - self._ends[0][0] if len(self._ends) == RECENT else now_s
        lags = sorted(self._lag)
        return Progress(
            elapsed_s=now_s,
            duration_s=self._duration_s,
            planned=self._planned,
            sent=self.sent,
            in_flight=in_flight,
            ok=self._outcomes[Outcome.OK],
            failed=self._outcomes[Outcome.FAILED],
            timed_out=self._outcomes[Outcome.TIMED_OUT],
            rate_rps=len(self._ends) / span_s if span_s > 0 else 0.0,
            output_tokens_per_s=sum(tokens for _, tokens in self._ends) / span_s if span_s > 0 else 0.0,
            ttft_p50_s=statistics.median(self._ttft) if self._ttft else None,
            tpot_p50_s=statistics.median(self._tpot) if self._tpot else None,
            lag_p99_s=lags[int(0.99 * len(lags))] if lags else None,
            last_error=self._last_error,
        )
