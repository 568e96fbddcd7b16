"""Load generator against failing servers: one record per request, the end of the run, the stated reason."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from octavo.bench.client.journal import read_journal
from octavo.bench.client.options import ClientOptions
from octavo.bench.client.progress import Progress
from octavo.bench.client.target import Target, parse_address
from octavo.bench.run import Interrupts, run_plan
from octavo.bench.types import BenchRequest, LoadPlan, Outcome
from octavo.errors import BenchError, ConfigError
from support.bench_load import closed_plan, open_plan, requests, virtual_run
from support.stub_server import StubConfig, StubProcess, StubServer
from support.virtual_time import run_virtual

SLOW = StubConfig(ttft="fixed:0.2", chunk_interval_s=0.1)


def test_failures_and_timeouts_are_kept_apart() -> None:
    config = StubConfig(
        ttft="fixed:0.1",
        chunk_interval_s=0.01,
        refuse_rate=0.1,
        hang_rate=0.1,
        cut_rate=0.1,
        malformed_rate=0.1,
        error_event_rate=0.1,
        garbage_rate=0.1,
        seed=5,
    )
    plan = open_plan([0.05 * i for i in range(300)])
    outcome, stub = virtual_run(plan, config, ClientOptions(request_timeout_s=2.0))
    words = {
        "refused": (Outcome.FAILED, "503: queue full"),
        "hung": (Outcome.TIMED_OUT, "no end within 2 s"),
        "cut": (Outcome.FAILED, "the server closed the connection (after 2 chunks)"),
        "malformed": (Outcome.FAILED, "malformed event: "),
        "garbage": (Outcome.FAILED, "not HTTP/1.1: "),
        "error_event": (Outcome.FAILED, "error event: engine died"),
    }
    for record, truth in zip(outcome.records, stub.requests, strict=True):
        if truth.fate == "ok":
            assert (record.outcome, record.error, record.output_tokens) == (Outcome.OK, None, 4)
        else:
            assert record.outcome is words[truth.fate][0]
            assert (record.error or "").startswith(words[truth.fate][1])
            assert record.output_tokens is None
        if truth.fate == "hung":
            assert record.e2e_s == pytest.approx(2.0, abs=0.03)
            assert truth.left  # the server is told, by the closed connection
    assert set(words) | {"ok"} == {truth.fate for truth in stub.requests}
    assert outcome.valid, outcome.invalid_reason


def test_a_server_that_dies_ends_the_run_with_one_reason(tmp_path: Path) -> None:
    plan = open_plan([0.1 * i for i in range(1000)])
    journal = tmp_path / "run.jsonl"
    outcome, _ = virtual_run(
        plan, StubConfig(ttft="fixed:0.05", die_after=30), ClientOptions(journal=str(journal), server_gone_after_s=1.0)
    )
    assert outcome.duration_s < 5
    assert len(outcome.records) == 1000
    assert Counter(record.outcome for record in outcome.records) == {Outcome.OK: 29, Outcome.FAILED: 971}
    unsent = [record for record in outcome.records if record.not_sent]
    assert 950 < len(unsent) < 970
    assert {record.error for record in unsent} == {
        f"not sent: {outcome.invalid_reason}".removesuffix(f"; {len(unsent)} requests were not sent")
    }
    assert not outcome.valid
    assert (outcome.invalid_reason or "").startswith("the server is gone: cannot connect: ")
    assert outcome.server_metrics["after"] == {}
    assert sorted(record.index for record in read_journal(journal)[1]) == list(range(1000))


def test_users_of_a_dead_server_do_not_burn_the_plan() -> None:
    plan = closed_plan(4, requests(5000))
    outcome, _ = virtual_run(plan, StubConfig(ttft="fixed:0.05", die_after=20), ClientOptions(server_gone_after_s=1.0))
    tried = [record for record in outcome.records if record.outcome is Outcome.FAILED and not record.not_sent]
    assert 4 <= len(tried) <= 4 * 15
    assert not outcome.valid
    assert len(outcome.records) == 5000


def test_a_server_that_comes_back_is_not_gone() -> None:
    async def restart(stub: StubServer) -> None:
        await asyncio.sleep(2.05)
        uds = stub.uds
        stub.stop()
        await asyncio.sleep(0.5)
        await stub.start(uds=uds)

    outcome, _ = virtual_run(open_plan([0.1 * i for i in range(60)]), StubConfig(ttft="fixed:0.01"), beside=restart)
    failed = [record for record in outcome.records if record.outcome is Outcome.FAILED]
    assert [record.index for record in failed] == [21, 22, 23, 24, 25]
    assert all("cannot connect" in (record.error or "") for record in failed)
    assert outcome.valid, outcome.invalid_reason


def test_a_turn_after_a_failed_one_is_not_sent() -> None:
    made = [
        BenchRequest(index=0, text="a", extra={"model": "x"}),
        BenchRequest(index=1, text="b", after=0),
        BenchRequest(index=2, text="c", after=1),
        BenchRequest(index=3, text="d"),
    ]
    plan = open_plan([0.0, None, None, 1.0], made)
    outcome, stub = virtual_run(plan, StubConfig(hang_rate=0.5, seed=1), ClientOptions(request_timeout_s=0.5))
    assert [request.fate for request in stub.requests] == ["hung", "ok"]
    assert [record.outcome for record in outcome.records] == [
        Outcome.TIMED_OUT,
        Outcome.CANCELLED,
        Outcome.CANCELLED,
        Outcome.OK,
    ]
    assert outcome.records[2].error == "not sent: request 0, a turn before it, timed out"
    assert outcome.records[2].not_sent


def test_nothing_answered_is_no_valid_run() -> None:
    outcome, _ = virtual_run(open_plan([0.0, 0.1]), StubConfig(refuse_rate=1.0))
    assert outcome.invalid_reason == "no request was answered (first error: 503: queue full)"


def test_a_response_that_is_no_stream_is_a_failure() -> None:
    outcome, _ = virtual_run(open_plan([0.0]), StubConfig(plain=True))
    assert (outcome.records[0].error or "").startswith("200: content type application/json, expected text/event-stream")


def test_a_stream_that_just_ends_is_a_failure() -> None:
    outcome, _ = virtual_run(open_plan([0.0]), StubConfig(done=False, finish=False))
    assert outcome.records[0].error == "the stream ended without a finish reason or [DONE] (after 4 chunks)"


@pytest.mark.parametrize("closes", [StubConfig(drop_reused=True), StubConfig(close_each=True)])
def test_a_server_that_closes_kept_connections_costs_no_request(closes: StubConfig) -> None:
    outcome, stub = virtual_run(open_plan([0.2 * i for i in range(50)]), closes, ClientOptions(spare_connections=1))
    assert {record.outcome for record in outcome.records} == {Outcome.OK}
    assert len(stub.requests) == 50


@pytest.mark.parametrize(("keep_alive_s", "expected"), [(4.0, 2), (0.0, 50)])
def test_connections_are_kept_or_made_for_each_request(keep_alive_s: float, expected: int) -> None:
    options = ClientOptions(keep_alive_s=keep_alive_s, scrape_interval_s=0)
    outcome, stub = virtual_run(open_plan([0.2 * i for i in range(50)]), StubConfig(ttft="fixed:0.3"), options)
    assert {record.outcome for record in outcome.records} == {Outcome.OK}
    others = 3  # preflight, metrics before and after: one client each
    assert expected <= stub.num_connections <= expected + others
    closes = [request.headers.get("connection") == "close" for request in stub.requests]
    assert closes == [keep_alive_s == 0] * 50


def test_spare_connections_are_open_before_they_are_needed() -> None:
    options = ClientOptions(spare_connections=5, scrape_interval_s=0)
    _, stub = virtual_run(open_plan([0.0]), StubConfig(metrics=False), options)
    assert 5 <= stub.num_connections <= 6


# before the run


def refused(target: Target, plan: LoadPlan | None = None, options: ClientOptions | None = None) -> str:
    """The message with which a run is refused before its first request."""
    with pytest.raises((BenchError, ConfigError)) as caught:
        run_virtual(run_plan(plan or open_plan([0.0]), target, options))
    return caught.value.message


def test_an_unreachable_server_is_one_clear_message() -> None:
    message = refused(Target(url="http://stub", uds="/no/such/socket"))
    assert message.startswith("cannot reach http://stub: ")
    assert "is a server running there?" in message


def test_what_the_server_says_before_the_run() -> None:
    for config, target, words in [
        (StubConfig(api_key="right"), {"api_key": "wrong"}, "401, the server wants another API key"),
        (StubConfig(model="small"), {"model": "large"}, "has no model 'large'; it lists small"),
    ]:
        with pytest.raises(BenchError, match=words):
            virtual_run(open_plan([0.0]), config, target=target)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://x:99999", "http://u:p@x", "http://a b"]
)
def test_a_malformed_url_is_refused(url: str) -> None:
    assert "expected http://host:port" in refused(Target(url=url))


def test_a_key_that_no_header_can_carry_is_refused() -> None:
    assert "printable ASCII" in refused(Target(url="http://stub", uds="/no/such/socket", api_key="a\r\nx: y"))


def test_urls() -> None:
    address = parse_address(Target(url="https://api.example.org/llm/v1/"))
    assert (address.host, address.port, address.tls, address.path) == ("api.example.org", 443, True, "/llm")
    assert parse_address(Target(url="http://[::1]:8000")).host == "::1"


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (open_plan([0.0], []), "0 requests but 1 send times"),
        (open_plan([], []), "no requests"),
        (open_plan([0.0], [BenchRequest(index=0)]), "no prompt"),
        (open_plan([0.0], [BenchRequest(index=0, text="a", token_ids=[1])]), "text and token_ids"),
        (open_plan([0.0], [BenchRequest(index=3, text="a")]), "numbered by their place"),
        (open_plan([None], [BenchRequest(index=0, text="a")]), "no send time"),
        (open_plan([None], [BenchRequest(index=0, text="a", after=0)]), "follows an earlier request"),
        (
            open_plan([0.0, None], [BenchRequest(index=0, text="a"), BenchRequest(index=1, token_ids=[1], after=0)]),
            "both must be messages or both text",
        ),
        (closed_plan(0, requests(1)), "at least one user"),
    ],
)
def test_a_plan_that_cannot_be_sent_is_refused(plan: LoadPlan, words: str) -> None:
    assert words in refused(Target(url="http://stub", uds="/no/such/socket"), plan)


# stopping

STOPPABLE = """
import sys
from octavo.bench.client.options import ClientOptions
from octavo.bench.client.progress import Progress
from octavo.bench.client.target import Target
from octavo.bench.run import run_blocking
from support.bench_load import open_plan
plan = open_plan([0.01 * i for i in range(100_000)])
outcome = run_blocking(plan, Target(url=sys.argv[1]), ClientOptions(journal=sys.argv[2]))
print(len(outcome.records), outcome.invalid_reason)
"""


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
from octavo.bench.client.target import Target
from octavo.bench.run import run_blocking
from support.bench_load import closed_plan, requests
outcome = run_blocking(closed_plan(100, requests(300)), Target(url=sys.argv[1]))
print(len(outcome.records), outcome.invalid_reason)
"""


def program(text: str, *arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})


def test_a_system_that_allows_too_few_files_is_named() -> None:
    with StubProcess(StubConfig(ttft="fixed:0.02")) as stub:
        output, _ = program(FEW_FILES, stub.url).communicate(timeout=100)
    assert output.startswith("300 the system allows no more open files (ulimit -n) and requests waited")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_real_program_that_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C ends it with a result, a kill without; the journal is there either way."""
    journal = tmp_path / "run.jsonl"
    with StubProcess() as stub:
        running = program(STOPPABLE, stub.url, str(journal))
        while not journal.exists() or journal.stat().st_size < 2000:
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(number)
        output, _ = running.communicate(timeout=100)
    _, records = read_journal(journal)
    assert records
    if number is signal.SIGINT:
        assert running.returncode == 0
        count, reason = output.strip().split(" ", 1)
        assert int(count) == len(records)
        assert reason.startswith("stopped by the user")


def test_an_interrupt_ends_the_run_with_what_it_has(tmp_path: Path) -> None:
    async def press(_: StubServer) -> None:
        await asyncio.sleep(3.05)
        signal.raise_signal(signal.SIGINT)

    journal = tmp_path / "run.jsonl"
    outcome, stub = virtual_run(
        open_plan([0.1 * i for i in range(1000)]),
        SLOW,
        ClientOptions(journal=str(journal)),
        beside=press,
        interrupts=Interrupts(),
    )
    assert outcome.duration_s == pytest.approx(3.05, abs=0.05)
    assert not outcome.valid
    assert outcome.invalid_reason == "stopped by the user"
    assert outcome.stopped_by_user
    counts = Counter(record.outcome for record in outcome.records)
    assert counts[Outcome.OK] + counts[Outcome.CANCELLED] == len(stub.requests)
    assert 1 <= counts[Outcome.CANCELLED] <= 6
    head, records = read_journal(journal)
    assert (head.model, head.workload) == ("stub", "test")
    assert sorted(records, key=lambda record: record.index) == outcome.records


def test_a_cancelled_run_leaves_its_journal(tmp_path: Path) -> None:
    journal = tmp_path / "run.jsonl"

    async def disconnect(_: StubServer) -> None:
        await asyncio.sleep(3.05)
        for task in asyncio.all_tasks():
            task.cancel()

    with pytest.raises(asyncio.CancelledError):
        virtual_run(
            open_plan([0.1 * i for i in range(1000)]), SLOW, ClientOptions(journal=str(journal)), beside=disconnect
        )
    _, records = read_journal(journal)
    assert sum(record.outcome is Outcome.OK for record in records) >= 25


class Broken:
    def progress(self, now: Progress) -> None:
        raise RuntimeError("the screen is gone")


def test_an_observer_that_fails_ends_the_run_and_leaves_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "run.jsonl"
    with pytest.raises(RuntimeError, match="the screen is gone"):
        virtual_run(
            open_plan([0.1 * i for i in range(1000)]), options=ClientOptions(journal=str(journal)), observer=Broken()
        )
    assert read_journal(journal)[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_clear_message() -> None:
    with pytest.raises(BenchError, match="cannot write the journal /dev/full: No space left"):
        virtual_run(open_plan([0.0]), options=ClientOptions(journal="/dev/full"))


def test_a_torn_journal_can_be_read_and_a_damaged_one_says_where(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    outcome, _ = virtual_run(open_plan([0.0, 0.1, 0.2]), options=ClientOptions(journal=str(path)))
    whole = path.read_bytes()
    assert read_journal(path)[1] == outcome.records
    path.write_bytes(whole[:-20])  # as if killed in the middle of a write
    assert read_journal(path)[1] == outcome.records[:2]
    lines = whole.split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b"{", *lines[2:]]))
    with pytest.raises(BenchError, match="line 2"):
        read_journal(path)
    path.write_bytes(b'{"a": 1}\n')
    with pytest.raises(BenchError, match="not a journal"):
        read_journal(path)
    with pytest.raises(BenchError, match="cannot read"):
        read_journal(tmp_path / "none")


def test_a_journal_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the journal"):
        virtual_run(open_plan([0.0]), options=ClientOptions(journal=str(tmp_path / "no" / "run.jsonl")))
