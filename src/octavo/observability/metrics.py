"""Prometheus metrics, fed by events, read at the moment of a scrape; names and units in the style of the field.

Engine totals come from the newest ``EngineStats``; the server's events add what only it sees (latencies as a client feels
them, ends of requests, HTTP responses). All of it lives in one collector with a registry of its own: no process-wide state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from octavo.observability.events import (
    EngineRestarted,
    EngineSnapshot,
    Event,
    FirstTokens,
    HttpResponded,
    NextTokens,
    RequestFinished,
    StepFinished,
)
from octavo.observability.histogram import TOKEN_BUCKETS, Histogram
from octavo.types import EngineStats

# EngineStats field -> (metric, help); exported as Prometheus counters, which end in _total.
_ENGINE_COUNTERS = {
    "total_prefix_query_tokens": ("octavo_prefix_cache_queries", "Prompt tokens looked up in the prefix cache"),
    "total_prefix_hit_tokens": ("octavo_prefix_cache_hits", "Prompt tokens served from the prefix cache"),
    "total_preemptions": ("octavo_num_preemptions", "Requests preempted"),
    "total_prompt_tokens": ("octavo_prompt_tokens", "Prompt tokens computed or found in the prefix cache"),
    "total_draft_tokens": ("octavo_spec_decode_num_draft_tokens", "Tokens that speculation proposed"),
    "total_accepted_tokens": ("octavo_spec_decode_num_accepted_tokens", "Proposed tokens that were right"),
    "total_steps": ("octavo_engine_steps", "Steps of the engine"),
}


class EngineTotals:
    """Engine counters that never fall: a restarted engine counts from zero again, and what it had counted is kept."""

    def __init__(self) -> None:
        self._base = dict.fromkeys(_ENGINE_COUNTERS, 0)
        self._last = dict.fromkeys(_ENGINE_COUNTERS, 0)

    def update(self, stats: EngineStats) -> None:
        """Take a snapshot; fewer steps than in the last one mean another engine."""
        if stats.total_steps < self._last["total_steps"]:
            for name, value in self._last.items():
                self._base[name] += value
        for name in self._last:
            self._last[name] = getattr(stats, name)

    def __getitem__(self, name: str) -> int:
        return self._base[name] + self._last[name]


class MetricsCollector(Collector):
    """Everything octavo exports. Fed (``observe``) and scraped from one thread, the server's event loop."""

    def __init__(self) -> None:
        self._stats = EngineStats()  # the newest
        self._totals = EngineTotals()
        self._num_generation_tokens = 0
        self._num_engine_restarts = 0
        self._finished: Counter[str] = Counter()
        self._http: Counter[tuple[str, int]] = Counter()
        self._ttft = Histogram("octavo_time_to_first_token_seconds", "Arrival to first token")
        self._itl = Histogram("octavo_inter_token_latency_seconds", "Between two consecutive tokens of a request")
        self._tpot = Histogram(
            "octavo_time_per_output_token_seconds", "A request's mean time per token after the first"
        )
        self._e2e = Histogram("octavo_e2e_request_latency_seconds", "Arrival to the end of a request")
        self._queue = Histogram("octavo_request_queue_time_seconds", "Arrival to first scheduled")
        self._step = Histogram("octavo_step_time_seconds", "Executor time of one step")
        self._prompt_tokens = Histogram("octavo_request_prompt_tokens", "Prompt tokens of a request", TOKEN_BUCKETS)
        self._output_tokens = Histogram(
            "octavo_request_generation_tokens", "Generated tokens of a request", TOKEN_BUCKETS
        )
        self._observers: dict[type[Event], Any] = {
            StepFinished: self._on_step,
            EngineSnapshot: self._on_snapshot,
            EngineRestarted: self._on_restart,
            FirstTokens: self._on_first_tokens,
            NextTokens: self._on_next_tokens,
            RequestFinished: self._on_finished,
            HttpResponded: self._on_http,
        }
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def observe(self, event: Event) -> None:
        """Take one event; some come for every token, so the choice of the method is one look-up."""
        self._observers[type(event)](event)

    def _on_step(self, event: StepFinished) -> None:
        stats = event.stats
        self._take_stats(stats)
        if stats.step_num_tokens:
            self._step.observe(stats.step_time_s)

    def _on_snapshot(self, event: EngineSnapshot) -> None:
        self._take_stats(event.stats)

    def _take_stats(self, stats: EngineStats) -> None:
        self._stats = stats
        self._totals.update(stats)

    def _on_restart(self, _: EngineRestarted) -> None:
        self._num_engine_restarts += 1

    def _on_first_tokens(self, event: FirstTokens) -> None:
        self._ttft.observe(event.ttft_s)
        self._num_generation_tokens += event.num_tokens

    def _on_next_tokens(self, event: NextTokens) -> None:
        self._itl.observe(event.itl_s, event.num_tokens)
        self._num_generation_tokens += event.num_tokens

    def _on_finished(self, event: RequestFinished) -> None:
        """Latencies only of requests that got a whole response."""
        self._finished[event.reason] += 1
        self._prompt_tokens.observe(event.num_prompt_tokens)
        self._output_tokens.observe(event.num_output_tokens)
        if (timings := event.timings) is None:
            return
        for histogram, value in (
            (self._queue, timings.queue_s),
            (self._tpot, timings.tpot_s),
            (self._e2e, timings.e2e_s),
        ):
            if value is not None:
                histogram.observe(value)

    def _on_http(self, event: HttpResponded) -> None:
        self._http[event.route, event.status] += 1

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The scrape's body and its content type, in the format that the ``Accept`` header asks for."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Every metric family, for the registry's exposition."""
        yield from _gauges(self._stats)
        for name, (metric, text) in _ENGINE_COUNTERS.items():
            yield CounterMetricFamily(metric, text, value=self._totals[name])
        yield CounterMetricFamily("octavo_generation_tokens", "Tokens generated", value=self._num_generation_tokens)
        yield CounterMetricFamily("octavo_engine_restarts", "Engine restarts", value=self._num_engine_restarts)
        finished = CounterMetricFamily(
            "octavo_request_success", "Requests ended, by reason", labels=["finished_reason"]
        )
        for reason, count in sorted(self._finished.items()):
            finished.add_metric([reason], count)
        yield finished
        http = CounterMetricFamily("octavo_http_requests", "HTTP responses", labels=["route", "status"])
        for (route, status), count in sorted(self._http.items()):
            http.add_metric([route, str(status)], count)
        yield http
        for histogram in (self._ttft, self._itl, self._tpot, self._e2e, self._queue, self._step):
            yield histogram.collect()
        yield self._prompt_tokens.collect()
        yield self._output_tokens.collect()


def _gauges(stats: EngineStats) -> Iterator[Metric]:
    usage = stats.num_blocks_used / stats.num_blocks if stats.num_blocks else 0.0
    yield GaugeMetricFamily("octavo_num_requests_running", "Requests that run", value=stats.num_running)
    yield GaugeMetricFamily("octavo_num_requests_waiting", "Requests that wait", value=stats.num_waiting)
    yield GaugeMetricFamily("octavo_kv_cache_usage_ratio", "Blocks in use / blocks", value=usage)
    yield GaugeMetricFamily(
        "octavo_step_time_forecast_error_ratio",
        "Moving mean of |forecast - measured| / measured of step times",
        value=stats.step_time_error,
    )
    yield GaugeMetricFamily("octavo_num_kv_blocks", "Blocks of the KV cache", value=stats.num_blocks)
