"""Wire format of the load generator: request bodies, keys, usage, metrics and TLS with servers of all habits."""

from __future__ import annotations

import asyncio
import io
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from octavo.bench.client.metrics import gauges, snapshot
from octavo.bench.client.options import ClientOptions
from octavo.bench.client.progress import Progress, Tally
from octavo.bench.client.response import Response
from octavo.bench.client.target import Prompt, Target
from octavo.bench.live import live_view
from octavo.bench.run import run_blocking, run_plan
from octavo.bench.types import BenchRequest, Outcome, RequestRecord
from octavo.errors import ConfigError
from support.bench_load import closed_plan, open_plan, requests, virtual_run
from support.stub_server import StubConfig, StubProcess, serve

HABITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "crlf": {"line_break": "crlf"},
    "cr": {"line_break": "cr"},
    "comments": {"comments": True},
    "single bytes": {"piece_bytes": 1},
    "pieces": {"piece_bytes": 13, "line_break": "crlf", "comments": True},
    "continue": {"continue_first": True},
    "no done": {"done": False},
    "closing": {"close_each": True, "piece_bytes": 50},
    "metrics that end with the connection": {"content_length": False},
}


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("prompt", [{"text": "hello"}, {"messages": [{"role": "user", "content": "hello"}]}])
def test_servers_of_all_habits(habit: str, prompt: dict[str, Any]) -> None:
    config = StubConfig(ttft="fixed:0.1", chunk_interval_s=0.01, **HABITS[habit])
    outcome, _ = virtual_run(open_plan([0.0, 0.5], requests(2, max_tokens=5, **prompt)), config)
    for record in outcome.records:
        assert record.outcome is Outcome.OK, record.error
        assert (record.status, record.finish_reason) == (200, "length")
        assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (7, 5, 3)
        assert record.server_timings == {"queue_s": 0.5, "ttft_s": None}
        assert record.chunk_tokens == [1] * 5
        assert record.ttft_s == pytest.approx(0.1, abs=1e-6)
    assert outcome.valid, outcome.invalid_reason
    assert outcome.server_series[0]["kv_usage"] == 0.25


def test_without_usage_chunks_are_counted_and_the_record_says_so() -> None:
    config = StubConfig(usage=False, tokens_per_chunk=4)
    outcome, _ = virtual_run(open_plan([0.0], requests(1, max_tokens=12)), config)
    (record,) = outcome.records
    assert (record.output_tokens, record.tokens_are_chunks, record.prompt_tokens) == (3, True, None)


@pytest.mark.parametrize(("running", "expected"), [(True, [4, 4, 4]), (False, [1, 1, 1])])
def test_running_usage_gives_tokens_per_chunk(running: bool, expected: list[int]) -> None:
    config = StubConfig(running_usage=running, tokens_per_chunk=4)
    outcome, _ = virtual_run(open_plan([0.0], requests(1, max_tokens=12)), config)
    (record,) = outcome.records
    assert record.chunk_tokens == expected
    assert (record.output_tokens, record.tokens_are_chunks) == (12, False)


def test_bodies_and_keys() -> None:
    made = [
        BenchRequest(index=0, text="a", max_tokens=3, priority=2, extra={"temperature": 0.5}, tenant="gold"),
        BenchRequest(index=1, token_ids=[1, 2], max_tokens=1, ignore_eos=False, tenant="other"),
        BenchRequest(index=2, messages=[{"role": "user", "content": "é"}], service_class="chat"),
    ]
    target = {"api_key": "general", "tenant_keys": {"gold": "special"}, "model": "stub"}
    outcome, stub = virtual_run(open_plan([0.0, 0.1, 0.2], made), target=target)
    first, second, third = stub.requests
    common = {"model": "stub", "stream": True, "stream_options": {"include_usage": True}}
    assert first.body == {
        **common,
        "prompt": "a",
        "max_tokens": 3,
        "ignore_eos": True,
        "priority": 2,
        "temperature": 0.5,
    }
    assert second.body == {**common, "prompt": [1, 2], "max_tokens": 1}
    assert third.body == {**common, "messages": made[2].messages, "max_tokens": 128, "ignore_eos": True}
    keys = [request.headers["authorization"] for request in stub.requests]
    assert keys == ["Bearer special", "Bearer general", "Bearer general"]
    assert first.headers["host"] == "stub"
    assert [(record.tenant, record.service_class) for record in outcome.records] == [
        ("gold", ""),
        ("other", ""),
        ("", "chat"),
    ]


def test_text_can_go_to_the_chat_route_and_usage_can_be_asked_for_in_each_chunk() -> None:
    options = ClientOptions(continuous_usage=True)
    _, stub = virtual_run(open_plan([0.0]), options=options, target={"endpoint": "chat"})
    (request,) = stub.requests
    assert request.path == "/v1/chat/completions"
    assert request.body["messages"] == [{"role": "user", "content": "hello"}]
    assert request.body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def heard(*events: dict[str, Any] | bytes, times: list[float] | None = None) -> RequestRecord:
    """The record of a response with these events, one each 0.1 s."""
    request = BenchRequest(index=0, text="x")
    response = Response(request, Prompt.of(request), 0.0, keep_text=False)
    response.head(200, "text/event-stream; charset=utf-8")
    for place, event in enumerate(events):
        data = event if isinstance(event, bytes) else msgspec.json.encode(event)
        response.body(b"data: " + data + b"\n\n", 0.1 * (place + 1))
    response.completed(9.0)
    return response.record


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def test_the_first_token_is_the_first_that_is_not_empty() -> None:
    record = heard(delta(role="assistant", content=""), delta(content=None), delta(content="a"), END, b"[DONE]")
    assert (record.first_token_s, record.end_s) == (pytest.approx(0.3), pytest.approx(0.5))
    assert record.chunk_s == [pytest.approx(0.3)]
    assert heard(delta(reasoning_content="hm"), delta(content="a"), END).first_token_s == pytest.approx(0.1)
    assert heard(delta(tool_calls=[{"index": 0}]), END).first_token_s == pytest.approx(0.1)


def test_tokens_whose_text_is_held_back_are_counted_with_the_next_text() -> None:
    def counted(text: str, tokens: int) -> dict[str, Any]:
        return delta(content=text) | {"usage": {"completion_tokens": tokens}}

    record = heard(counted("", 0), counted("a", 1), counted("", 2), counted("b", 4), END, b"[DONE]")
    assert record.chunk_tokens == [1, 3]
    assert record.output_tokens == 4


def test_responses_that_are_not_right() -> None:
    def error_of(*events: dict[str, Any] | bytes) -> str:
        record = heard(*events)
        assert record.outcome is Outcome.FAILED
        return record.error or ""

    assert error_of(END, b"[DONE]") == "a response without a token"
    assert error_of(delta(content="a")) == "the stream ended without a finish reason or [DONE] (after 1 chunks)"
    assert error_of({"object": "error", "message": "too long", "code": 400}) == "error event: too long"
    assert error_of({"error": "just words"}) == "error event: just words"
    assert error_of(b'"text"').startswith("malformed event: ")
    assert error_of(b'{"choices": 5}').startswith("malformed event: ")
    assert error_of(b'{"choices": [{"text": "\xff"}]}').startswith("malformed event: ")


def test_gauges_of_the_field() -> None:
    page = b"""\
# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running_total 99.0
vllm:num_requests_running{engine="0",model_name="a}b"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 4.0 1700000000
vllm:num_requests_waiting 2
vllm:gpu_cache_usage_perc{engine="0"} 0.5
vllm:gpu_cache_usage_perc{engine="1"} 7.5e-1"""
    assert gauges(page) == {"running": 7.0, "waiting": 2.0, "kv_usage": 0.75}
    assert gauges(b"octavo_num_requests_running 1.0\nsglang:token_usage oops\n") == {"running": 1.0}
    assert gauges(b"") == {}


def test_a_snapshot_keeps_totals_not_buckets() -> None:
    page = """\
# TYPE octavo_steps counter
octavo_steps_total{b="2",a="1"} 5
# TYPE octavo_ttft_seconds histogram
octavo_ttft_seconds_bucket{le="1"} 3
octavo_ttft_seconds_bucket{le="+Inf"} 3
octavo_ttft_seconds_sum 0.5
octavo_ttft_seconds_count 3
# TYPE process_cpu_seconds counter
process_cpu_seconds_total 4
"""
    assert snapshot(page) == {
        'octavo_steps_total{a="1",b="2"}': 5,
        "octavo_ttft_seconds_sum": 0.5,
        "octavo_ttft_seconds_count": 3,
    }
    assert snapshot("<html>no</html>") == {}


def test_the_timeline_has_the_server_when_it_offers() -> None:
    plan = open_plan([0.0, 0.5, 2.5], requests(3, max_tokens=1))
    outcome, _ = virtual_run(plan, StubConfig(ttft="fixed:1.8"))
    assert [row["t_s"] for row in outcome.server_series] == pytest.approx([0.02, 1.02, 2.02, 3.02, 4.02], abs=0.03)
    assert [row["in_flight"] for row in outcome.server_series] == [1, 2, 1, 1, 1]
    assert [row["running"] for row in outcome.server_series] == [1, 2, 1, 1, 1]
    key = 'vllm:generation_tokens_total{engine="0"}'
    assert (outcome.server_metrics["before"][key], outcome.server_metrics["after"][key]) == (0, 3)
    outcome, _ = virtual_run(plan, StubConfig(ttft="fixed:2", metrics=False))
    assert outcome.server_metrics == {}
    assert outcome.server_series[0] == {"t_s": pytest.approx(0.02), "in_flight": 1.0}


class Watcher:
    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def progress(self, now: Progress) -> None:
        self.seen.append(now)


def test_observers_see_the_run() -> None:
    watcher = Watcher()
    virtual_run(
        open_plan([0.1 * i for i in range(100)], duration_s=10.0),
        StubConfig(ttft="fixed:0.25", chunk_interval_s=0.05, refuse_rate=0.2, seed=4),
        observer=watcher,
    )
    assert 15 <= len(watcher.seen) <= 25
    last = watcher.seen[-1]
    assert last.sent == last.in_flight + last.ok + last.failed
    assert (last.planned, last.duration_s, last.timed_out, last.last_error) == (100, 10.0, 0, "503: queue full")
    assert last.ttft_p50_s == pytest.approx(0.25, abs=1e-6)
    assert last.tpot_p50_s == pytest.approx(0.05, abs=1e-6)
    assert last.rate_rps == pytest.approx(8, abs=1.5)


def test_the_view_writes_lines_to_a_pipe_and_a_table_to_a_terminal() -> None:
    tally = Tally(20, 60.0)
    tally.sent = 3
    tally.add(RequestRecord(index=0, intended_s=1, sent_s=1.002, first_token_s=1.5, end_s=2, output_tokens=11))
    tally.add(RequestRecord(index=1, intended_s=1, sent_s=1, outcome=Outcome.FAILED, error="503: [full]"))
    pipe = io.StringIO()
    with live_view("chat", Console(file=pipe)) as view:
        for at_s in (0.0, 2.0, 4.0, 5.5):
            view.progress(tally.progress(at_s, 1))
    lines = pipe.getvalue().splitlines()
    assert len(lines) == 2  # every five seconds
    for words in (
        "chat: 6 of 60 s",
        "3 sent",
        "1 in flight",
        "1 ok, 1 failed",
        "TTFT 500.0 ms",
        "TPOT 50.0 ms",
        "[full]",
    ):
        assert words in lines[1]
    screen = io.StringIO()
    with live_view("chat", Console(file=screen, force_terminal=True, width=100)) as view:
        view.progress(tally.progress(2.0, 1))
    for words in ("3 of 20 sent", "1 failed, 0 timed out", "TTFT 500.0 ms", "503: [full]"):
        assert words in screen.getvalue()


# over TCP, in real time


def test_a_server_in_another_process_under_uvloop() -> None:
    with StubProcess(StubConfig(ttft="fixed:0.002", chunk_interval_s=0.001)) as stub:
        target = Target(url=stub.url.replace("127.0.0.1", "localhost"))
        outcome = run_blocking(closed_plan(8, requests(200)), target)
        assert [record.index for record in outcome.records] == list(range(200))
        assert {record.outcome for record in outcome.records} == {Outcome.OK}
        assert all(record.chunk_s == sorted(record.chunk_s) for record in outcome.records)
        assert all((record.uncorrected_ttft_s or 0) >= 0.002 for record in outcome.records)
        stub.kill()
        with pytest.raises(Exception, match="cannot reach"):
            run_blocking(closed_plan(8, requests(2)), target)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
async def test_https(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=stub", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with serve(StubConfig(), ssl=context) as stub:
        plan = closed_plan(3, requests(20))
        outcome = await asyncio.wait_for(run_plan(plan, Target(url=stub.url, ca_file=str(certificate))), 30)
        assert {record.outcome for record in outcome.records} == {Outcome.OK}
        with pytest.raises(Exception, match="cannot reach"):
            await run_plan(plan, Target(url=stub.url))
        with pytest.raises(ConfigError, match="cannot read the certificates"):
            await run_plan(plan, Target(url=stub.url, ca_file=str(tmp_path / "none.pem")))
