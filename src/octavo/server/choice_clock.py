"""Where did the time of a choice go, as the server saw it? Feeds the latency histograms and the answer's ``timings``."""

from __future__ import annotations

import time
from statistics import fmean

import msgspec

from octavo.observability.metrics import MetricsCollector
from octavo.server.answers import Timings
from octavo.types import RequestTimings


class ChoiceClock:
    """Watches one choice from its arrival to its end, on the server's own clock."""

    def __init__(self, arrival_s: float, metrics: MetricsCollector) -> None:
        self._arrival_s = arrival_s
        self._metrics = metrics
        self._first_s: float | None = None
        self._last_s = arrival_s
        self._num_tokens = 0
        self._timings: RequestTimings | None = None
        self._early: RequestTimings | None = None

    def tokens(self, count: int, engine: RequestTimings | None) -> None:
        """``count`` tokens have just arrived; ``engine``: what the engine says of their request's times, if anything."""
        self._early = engine or self._early
        if not count:
            return
        now = time.monotonic()
        if self._first_s is None:
            self._first_s = now
            self._metrics.ttft.observe(now - self._arrival_s)
        else:
            self._metrics.itl.observe((now - self._last_s) / count, count)
        self._last_s = now
        self._num_tokens += count
        self._metrics.num_generation_tokens += count

    def end(self, engine: RequestTimings | None) -> RequestTimings:
        """The choice is answered. A stop string ends it here before the engine knows: then ``engine`` is None."""
        if engine is not None:
            self._timings = engine
            return engine
        first_s = self._first_s
        tpot_s = None
        if first_s is not None and self._num_tokens > 1:
            tpot_s = (self._last_s - first_s) / (self._num_tokens - 1)
        self._timings = RequestTimings(
            ttft_s=None if first_s is None else first_s - self._arrival_s,
            tpot_s=tpot_s,
            e2e_s=time.monotonic() - self._arrival_s,
            queue_s=self._early.queue_s if self._early is not None else None,
            num_preemptions=self._early.num_preemptions if self._early is not None else 0,
        )
        return self._timings

    def report(self, reason: str, num_prompt_tokens: int) -> None:
        """The choice is over, answered or not."""
        self._metrics.observe_finished(reason, num_prompt_tokens, self._num_tokens, self._timings)


def combined(timings: list[RequestTimings]) -> Timings:
    """One request's timings from its choices'; see ``Timings``."""
    if len(timings) == 1:
        return Timings(**msgspec.structs.asdict(timings[0]))
    queue = [t.queue_s for t in timings if t.queue_s is not None]
    first = [t.ttft_s for t in timings if t.ttft_s is not None]
    per_token = [t.tpot_s for t in timings if t.tpot_s is not None]
    end = [t.e2e_s for t in timings if t.e2e_s is not None]
    return Timings(
        queue_s=max(queue, default=None),
        ttft_s=min(first, default=None),
        tpot_s=fmean(per_token) if per_token else None,
        e2e_s=max(end, default=None),
        num_preemptions=sum(t.num_preemptions for t in timings),
    )
