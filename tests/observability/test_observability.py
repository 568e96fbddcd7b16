"""Prometheus metrics from events, histograms, logs and the drain rate, against independent references."""

from __future__ import annotations

import io
import json
import logging
import random
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as ReferenceHistogram
from prometheus_client.parser import text_string_to_metric_families

from octavo.config import ServerConfig
from octavo.errors import ConfigError
from octavo.observability.events import EngineRestarted, EngineSnapshot, RequestFinished, StepFinished
from octavo.observability.histogram import TIME_BUCKETS_S, Histogram
from octavo.observability.logs import setup_logging
from octavo.observability.metrics import MetricsCollector
from octavo.server.concurrency import MAX_RETRY_AFTER_S, DrainRate
from octavo.types import EngineStats, RequestTimings
from support.fake_engine_client import FakeEngineClient, connect


def samples(metrics: MetricsCollector) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, _ = metrics.exposition()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_histogram_equals_the_librarys_own() -> None:
    reference = ReferenceHistogram("x", "x", buckets=TIME_BUCKETS_S, registry=CollectorRegistry())
    ours = Histogram("x", "x")
    rng = random.Random(1)
    for value in (*TIME_BUCKETS_S, 0.0, 1e9, *(rng.lognormvariate(-3, 3) for _ in range(2000))):
        reference.observe(value)
        ours.observe(value)
    expected = {(s.name, s.labels.get("le")): s.value for f in reference.collect() for s in f.samples}
    actual = {(s.name, s.labels.get("le")): s.value for s in ours.collect().samples}
    for (name, bound), value in actual.items():
        key = (name, bound if bound in (None, "+Inf") else str(float(bound)))
        assert value == pytest.approx(expected[key]), name


def test_engine_totals_survive_a_restart_of_the_engine() -> None:
    metrics = MetricsCollector()
    metrics.observe(
        StepFinished(EngineStats(total_steps=5, total_prompt_tokens=100, step_num_tokens=1, step_time_s=0.01))
    )
    metrics.observe(
        StepFinished(EngineStats(total_steps=9, total_prompt_tokens=140, step_num_tokens=1, step_time_s=0.01))
    )
    metrics.observe(EngineRestarted())
    metrics.observe(
        StepFinished(EngineStats(total_steps=2, total_prompt_tokens=7, step_num_tokens=1, step_time_s=0.01))
    )
    found = samples(metrics)
    assert found["octavo_prompt_tokens_total", ()] == 147
    assert found["octavo_engine_steps_total", ()] == 11
    assert found["octavo_engine_restarts_total", ()] == 1
    assert found["octavo_step_time_seconds_count", ()] == 3
    assert found["octavo_step_time_seconds_bucket", (("le", "0.01"),)] == 3


def test_ends_of_requests_and_gauges() -> None:
    stats = EngineStats(num_running=3, num_waiting=2, num_blocks=10, num_blocks_used=4)
    metrics = MetricsCollector()
    metrics.observe(EngineSnapshot(stats))
    metrics.observe(RequestFinished("stop", 5, 7, RequestTimings(queue_s=0.1, tpot_s=None, e2e_s=2.0)))
    metrics.observe(RequestFinished("abort", 5, 1, None))
    found = samples(metrics)
    assert found["octavo_request_success_total", (("finished_reason", "stop"),)] == 1
    assert found["octavo_request_success_total", (("finished_reason", "abort"),)] == 1
    assert found["octavo_e2e_request_latency_seconds_sum", ()] == 2.0
    assert found["octavo_time_per_output_token_seconds_count", ()] == 0
    assert found["octavo_request_generation_tokens_sum", ()] == 8
    assert found["octavo_num_requests_running", ()] == 3
    assert found["octavo_num_requests_waiting", ()] == 2
    assert found["octavo_kv_cache_usage_ratio", ()] == pytest.approx(0.4)


async def test_metrics_route_counts_what_happened() -> None:
    engine = FakeEngineClient()
    async with connect(engine) as client:
        await client.post("/v1/completions", json={"prompt": "abc", "max_tokens": 7})
        await client.post("/v1/completions", json={"prompt": "abc", "stop": "l", "max_tokens": 7, "stream": True})
        await client.post("/v1/completions", json={})
        await client.get("/nothing/here")
        response = await client.get("/metrics")
        openmetrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("text/plain")
    assert "openmetrics" in openmetrics.headers["content-type"]
    assert openmetrics.text.endswith("# EOF\n")
    found = {
        (s.name, *sorted(s.labels.values())): s.value
        for f in text_string_to_metric_families(response.text)
        for s in f.samples
    }
    assert found["octavo_generation_tokens_total",] == 7 + 3
    assert found["octavo_num_kv_blocks",] == 64  # of the newest snapshot: this engine reports no steps
    assert found["octavo_time_to_first_token_seconds_count",] == 2
    assert found["octavo_inter_token_latency_seconds_count",] == 6 + 2
    assert found["octavo_request_success_total", "length"] == 1
    assert found["octavo_request_success_total", "stop"] == 1
    assert found["octavo_http_requests_total", "/v1/completions", "200"] == 2
    assert found["octavo_http_requests_total", "/v1/completions", "400"] == 1
    assert found["octavo_http_requests_total", "404", "unmatched"] == 1
    assert found["octavo_e2e_request_latency_seconds_count",] == 2


def test_drain_rate_is_the_ends_per_second_of_the_window() -> None:
    drain = DrainRate(window_s=20.0, start_s=100.0)
    assert drain.per_second(100.0) == 0.0
    assert drain.retry_after_s(5, 100.0) == 1.0
    for i in range(400):  # four a second for 100 s
        drain.record(100.0 + i / 4)
    assert drain.per_second(200.0) == pytest.approx(4.0, rel=0.15)
    assert drain.retry_after_s(40, 200.0) == pytest.approx(10.0, abs=2)
    assert drain.retry_after_s(1, 200.0) == 1.0
    assert drain.retry_after_s(10_000, 200.0) == MAX_RETRY_AFTER_S
    assert drain.per_second(300.0) == 0.0
    assert drain.retry_after_s(1, 300.0) == 20.0  # nothing has ended for a whole window


def test_drain_rate_of_a_young_server_and_bounded_memory() -> None:
    drain = DrainRate(window_s=10.0, start_s=0.0)
    for i in range(1000):
        drain.record(i / 500)
    assert drain.per_second(2.0) == pytest.approx(500, rel=0.1)
    for i in range(100_000):
        drain.record(2.0 + i / 100)
    assert len(drain._slots) <= 12


@pytest.fixture
def loggers() -> Iterator[None]:
    names = ("octavo", "uvicorn")
    before = [(logging.getLogger(n), list(logging.getLogger(n).handlers), logging.getLogger(n).level) for n in names]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_logs_are_json_for_machines_and_one_line_for_people(loggers: None) -> None:
    out, terminal = io.StringIO(), Terminal()
    for stream in (out, terminal):
        setup_logging("debug", stream)
        logging.getLogger("octavo.test").info("two\nlines", extra={"facts": {"request_id": "r1", "num": 3}})
    line = json.loads(out.getvalue())
    assert (line["message"], line["request_id"], line["num"], line["level"]) == ("two\nlines", "r1", 3, "info")
    assert terminal.getvalue().count("\n") == 1
    assert "two\\nlines request_id=r1 num=3" in terminal.getvalue()


def test_log_level_comes_from_the_environment(loggers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setenv("OCTAVO_LOG", "error")
    setup_logging(stream=out)
    logging.getLogger("octavo.test").warning("hidden")
    assert out.getvalue() == ""
    monkeypatch.setenv("OCTAVO_LOG", "loud")
    with pytest.raises(ConfigError, match="'loud', expected one of debug"):
        setup_logging(stream=out)


async def test_prompts_answers_and_keys_are_never_logged(
    loggers: None, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    out = io.StringIO()
    setup_logging("debug", out)
    async with connect(FakeEngineClient("SECRET-ANSWER"), ServerConfig()) as client:
        for body in ({"prompt": "SECRET-PROMPT"}, {"prompt": "SECRET-PROMPT", "n": -1}, {"prompt": 1, "SECRET-K": 1}):
            await client.post("/v1/completions", json=body, headers={"authorization": "Bearer SECRET-KEY"})
    assert "/v1/completions" in out.getvalue()
    assert "SECRET" not in out.getvalue()
