"""Accuracy of the load generator: known latencies, stalls and queues of a server, in virtual time."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from octavo.bench.client.options import ClientOptions
from octavo.bench.client.progress import Progress
from octavo.bench.types import BenchRequest, Outcome
from support.bench_load import closed_plan, open_plan, requests, virtual_run
from support.stub_server import StubConfig
from support.virtual_time import VirtualTimeLoop

EXACT = 1e-6


def poisson(rate_rps: float, count: int, seed: int = 1) -> list[float | None]:
    rng = random.Random(seed)
    return list(itertools.accumulate(rng.expovariate(rate_rps) for _ in range(count)))


@pytest.mark.parametrize("ttft", ["fixed:0.05", "lognormal:0.05:0.8", "exponential:0.1"])
def test_latencies_are_the_servers(ttft: str) -> None:
    plan = open_plan(poisson(50, 250))
    outcome, stub = virtual_run(plan, StubConfig(ttft=ttft, chunk_interval_s=0.01, seed=3))
    assert outcome.valid, outcome.invalid_reason
    for record, sent, truth in zip(outcome.records, plan.send_s, stub.requests, strict=True):
        assert record.outcome is Outcome.OK
        assert record.intended_s == sent
        assert record.client_lag_s == pytest.approx(0, abs=EXACT)
        assert record.ttft_s == pytest.approx(truth.ttft_s, abs=EXACT)
        assert record.e2e_s == pytest.approx(truth.ttft_s + 3 * 0.01, abs=EXACT)
        assert record.tpot_s == pytest.approx(0.01, abs=EXACT)
        assert np.diff(record.chunk_s) == pytest.approx([0.01] * 3, abs=EXACT)
    for q in (0.5, 0.9, 0.99):
        measured = np.quantile([record.ttft_s for record in outcome.records], q)
        assert measured == pytest.approx(np.quantile([one.ttft_s for one in stub.requests], q), abs=EXACT)


def expected_e2e(send_s: list[float], service_s: float, stall: tuple[float, float]) -> list[float]:
    """One server, first come first served, standing still in [stall): worked out without the stub's own arithmetic, by
    walking the wall clock."""
    begin_s, end_s = stall
    free_s, found = 0.0, []
    for sent_s in send_s:
        start_s = max(sent_s, free_s)
        if begin_s <= start_s < end_s:
            start_s = end_s
        free_s = start_s + service_s
        if start_s < begin_s <= free_s:
            free_s += end_s - begin_s
        found.append(free_s - sent_s)
    return found


STALLING = StubConfig(ttft="fixed:0.05", servers=1, stall_at_s=3.0, stall_s=2.0)
SEND_S = [0.1 * i for i in range(100)]


def test_a_stall_of_two_seconds_shows_the_whole_queueing_delay() -> None:
    plan = open_plan(list(SEND_S), requests(100, max_tokens=1))
    outcome, _ = virtual_run(plan, STALLING)
    expected = expected_e2e(SEND_S, 0.05, (3.0, 5.0))
    assert [record.e2e_s for record in outcome.records] == pytest.approx(expected, abs=1e-4)
    # What was due as the world stopped waits 2 s; the queue it left behind is worked off at twice the rate of arrival.
    assert max(expected) == pytest.approx(2.05, abs=0.01)
    assert sum(latency > 0.06 for latency in expected) == pytest.approx(40, abs=2)
    assert outcome.valid, outcome.invalid_reason


def test_a_client_that_waits_for_its_own_connection_hides_nothing() -> None:
    """Coordinated omission: one connection only. From the actual send all is well, from the intended one it is not."""
    plan = open_plan(list(SEND_S), requests(100, max_tokens=1))
    outcome, _ = virtual_run(plan, STALLING, ClientOptions(max_connections=1, spare_connections=0))
    expected = expected_e2e(SEND_S, 0.05, (3.0, 5.0))
    assert [record.e2e_s for record in outcome.records] == pytest.approx(expected, abs=1e-4)
    uncorrected = [record.uncorrected_e2e_s or 0.0 for record in outcome.records]
    assert sum(latency > 0.06 for latency in uncorrected) == 1  # the one that was being served
    lags = [record.client_lag_s for record in outcome.records]
    assert [lag + wait for lag, wait in zip(lags, uncorrected, strict=True)] == pytest.approx(expected, abs=1e-4)
    assert not outcome.valid
    assert "all 1 connections were in use" in (outcome.invalid_reason or "")
    assert "could not keep up" in (outcome.invalid_reason or "")


class Blocker:
    """An observer that takes its time: the loop stands still for so long whenever it is told."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def progress(self, now: Progress) -> None:
        loop = VirtualTimeLoop.current()
        loop.advance(self._seconds)


def test_a_client_made_too_slow_marks_the_run_invalid() -> None:
    plan = open_plan([0.01 * i for i in range(500)])
    outcome, stub = virtual_run(plan, StubConfig(ttft="fixed:0.02"), observer=Blocker(0.1))
    assert not outcome.valid
    assert "could not keep up: it sent late by" in (outcome.invalid_reason or "")
    assert "stood still" in (outcome.invalid_reason or "")
    worst = max(outcome.records, key=lambda record: record.client_lag_s)
    assert worst.client_lag_s == pytest.approx(0.1, abs=0.02)
    assert outcome.client["worst_stall_s"] == pytest.approx(0.1, abs=0.02)
    # still honest: the delay that the client caused is in the corrected latency, not in the other
    assert worst.uncorrected_ttft_s == pytest.approx(0.02, abs=1e-3)
    assert worst.ttft_s == pytest.approx(0.12, abs=0.02)
    assert len(stub.requests) == 500


def test_one_long_stall_of_the_client_is_enough() -> None:
    plan = open_plan([0.0, 10.0], requests(2))
    outcome, _ = virtual_run(plan, observer=Blocker(0.3))
    assert "the client stood still for" in (outcome.invalid_reason or "")


def test_a_lag_that_is_small_against_the_latency_is_allowed() -> None:
    plan = open_plan([0.02 * i for i in range(150)])
    slow_server = StubConfig(ttft="fixed:4")
    outcome, _ = virtual_run(plan, slow_server, ClientOptions(max_stall_share=1.0), observer=Blocker(0.1))
    assert outcome.valid, outcome.invalid_reason  # 100 ms of 4 s is less than 5 %


def test_a_closed_loop_keeps_its_users_in_flight() -> None:
    config = StubConfig(ttft="lognormal:0.05:0.5", chunk_interval_s=0.005, seed=2)
    outcome, stub = virtual_run(closed_plan(7, requests(200)), config)
    assert len(outcome.records) == 200
    assert stub.most_in_flight == 7
    # after the first six have come, each arrival is the seventh
    assert stub.in_flight_at_arrival == {**dict.fromkeys(range(1, 7), 1), 7: 194}
    assert outcome.valid, outcome.invalid_reason
    ends = sorted(record.end_s or 0.0 for record in outcome.records)
    starts = sorted(record.sent_s for record in outcome.records)
    assert starts[7:] == pytest.approx(ends[:193], abs=EXACT)  # a user goes on when its response ends


def test_a_user_thinks_and_stops_at_the_end() -> None:
    plan = closed_plan(2, requests(100), think_s=0.4, duration_s=4.9)
    outcome, _ = virtual_run(plan, StubConfig(ttft="fixed:0.1"))
    starts = [record.intended_s for record in outcome.records]
    assert starts == pytest.approx([0.5 * (i // 2) for i in range(20)], abs=1e-4)
    assert all(record.client_lag_s == pytest.approx(0, abs=EXACT) for record in outcome.records)
    assert outcome.duration_s == pytest.approx(4.6, abs=0.01)


def test_an_open_plan_stops_sending_at_its_duration() -> None:
    outcome, stub = virtual_run(open_plan([0.5 * i for i in range(20)], duration_s=4.0), StubConfig(ttft="fixed:3"))
    assert len(stub.requests) == len(outcome.records) == 8
    assert {record.outcome for record in outcome.records} == {Outcome.OK}
    assert outcome.valid, outcome.invalid_reason


def test_turns_carry_the_conversation() -> None:
    made = [
        BenchRequest(index=0, messages=[{"role": "user", "content": "one"}], max_tokens=2),
        BenchRequest(index=1, messages=[{"role": "user", "content": "two"}], max_tokens=3, after=0, think_s=1.5),
        BenchRequest(index=2, messages=[{"role": "user", "content": "three"}], max_tokens=1, after=1),
        BenchRequest(index=3, text="once", max_tokens=2),
        BenchRequest(index=4, text=" and then", max_tokens=2, after=3),
    ]
    outcome, stub = virtual_run(open_plan([0.0, None, None, 5.0, None], made), StubConfig(ttft="fixed:0.25"))
    one, two, three, once, then = (request.body for request in stub.requests)
    assert one["messages"] == [{"role": "user", "content": "one"}]
    assert two["messages"] == [*one["messages"], said(2), {"role": "user", "content": "two"}]
    assert three["messages"] == [*two["messages"], said(3), {"role": "user", "content": "three"}]
    assert (once["prompt"], then["prompt"]) == ("once", "once w0 w1 and then")
    assert [request.path for request in stub.requests] == ["/v1/chat/completions"] * 3 + ["/v1/completions"] * 2
    assert [record.intended_s for record in outcome.records] == pytest.approx([0, 1.75, 2.0, 5, 5.25], abs=1e-4)


def said(num_chunks: int) -> dict[str, str]:
    return {"role": "assistant", "content": "".join(f" w{k}" for k in range(num_chunks))}


def test_a_closed_user_finishes_the_conversation_first() -> None:
    made = [
        BenchRequest(index=0, text="a"),
        BenchRequest(index=1, text="b"),
        BenchRequest(index=2, text="c", after=0),
        BenchRequest(index=3, text="d", after=2),
    ]
    outcome, stub = virtual_run(closed_plan(1, made, think_s=1.0), StubConfig(ttft="fixed:0.5"))
    assert [request.body["prompt"][-1] for request in stub.requests] == ["a", "c", "d", "b"]
    assert sorted(r.intended_s for r in outcome.records) == pytest.approx([0, 0.5, 1.0, 2.5], abs=1e-4)
