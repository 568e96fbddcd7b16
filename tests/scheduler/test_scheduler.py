"""Scheduling decisions, one by one."""

from __future__ import annotations

import pytest

from octavo.errors import ConfigError, InvalidRequestError
from octavo.scheduler.policies import make_policy
from octavo.types import FinishReason, Plan, Sample, SamplingParams, StepResult
from support.scheduling import finish_step, make_request, make_scheduler, next_token, run_step, run_to_end


def shares(plan) -> dict[str, tuple[int, int]]:  # type: ignore[no-untyped-def]
    return {p.request_id: (p.start, p.num_tokens) for p in plan.requests}


def test_a_long_prefill_runs_in_chunks_and_never_stalls_a_decode() -> None:
    scheduler = make_scheduler(num_blocks=32, max_step_tokens=8)
    scheduler.add(make_request("short", [1, 2, 3], max_tokens=10), 0.0)
    run_step(scheduler)
    scheduler.add(make_request("long", list(range(20))), 0.0)
    plans = [shares(run_step(scheduler)[0]) for _ in range(3)]
    assert plans[0] == {"short": (3, 1), "long": (0, 7)}
    assert plans[1] == {"short": (4, 1), "long": (7, 7)}
    assert plans[2] == {"short": (5, 1), "long": (14, 6)}


def test_only_the_last_chunk_samples_and_decodes_come_first() -> None:
    scheduler = make_scheduler(num_blocks=32, max_step_tokens=8)
    scheduler.add(make_request("long", list(range(12)), max_tokens=2), 0.0)
    plan, events = run_step(scheduler)
    assert [p.samples for p in plan.requests] == [False]
    assert events == []
    scheduler.add(make_request("next", [5, 6]), 0.0)
    plan, events = run_step(scheduler)
    assert [p.samples for p in plan.requests] == [True, True]
    assert [len(event.token_ids) for event in events] == [1, 1]
    scheduler.add(make_request("third", [7, 8, 9]), 0.0)
    plan, _ = run_step(scheduler)
    assert [p.num_tokens for p in plan.requests] == [1, 1, 3]


def test_order_of_arrival_and_no_overtaking() -> None:
    scheduler = make_scheduler(num_blocks=8, block_size=4, max_num_running=2)
    for name in "abc":
        scheduler.add(make_request(name, [1, 2], max_tokens=3), 0.0)
    plan, _ = run_step(scheduler)
    assert list(shares(plan)) == ["a", "b"]
    assert set(run_to_end(scheduler)) == {"a", "b", "c"}


def test_a_big_head_of_the_queue_is_not_overtaken_by_small_ones() -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=4, max_step_tokens=32)
    scheduler.add(make_request("running", [1] * 9, max_tokens=2), 0.0)
    run_step(scheduler)
    scheduler.add(make_request("big", [2] * 8, max_tokens=2), 0.0)
    scheduler.add(make_request("small", [3], max_tokens=1), 0.0)
    plan, _ = run_step(scheduler)
    assert list(shares(plan)) == ["running"]


def test_memory_runs_out_the_youngest_gives_way_and_keeps_its_seniority() -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=2, max_num_running=3, prefix_cache=False)
    for name in ("old", "young", "late"):
        scheduler.add(make_request(name, [hash(name) % 50, 2], max_tokens=5), 0.0)
    preempted: list[str] = []
    outputs: dict[str, list[int]] = {}
    ends: list[str] = []
    while scheduler.has_work:
        plan, events = run_step(scheduler)
        preempted += plan.preempted
        for event in events:
            outputs.setdefault(event.request_id, []).extend(event.token_ids)
            ends += [event.request_id] if event.finish_reason else []
    assert preempted
    assert "old" not in preempted, "the first-ranked is never preempted"
    assert ends == ["old", "young", "late"]
    assert all(len(tokens) == 5 for tokens in outputs.values())


def test_preemption_changes_nothing_but_time() -> None:
    def outputs(num_blocks: int) -> dict[str, list[int]]:
        scheduler = make_scheduler(num_blocks=num_blocks, block_size=2, max_num_running=4, max_step_tokens=8)
        for i in range(6):
            scheduler.add(make_request(f"r{i}", list(range(i, i + 5)), max_tokens=7), 0.0)
        return run_to_end(scheduler)

    assert outputs(7) == outputs(1000)


def test_an_urgent_waiter_takes_a_slot_when_all_are_full() -> None:
    scheduler = make_scheduler(policy="priority", max_num_running=2, num_blocks=32)
    for name in ("a", "b"):
        scheduler.add(make_request(name, [1, 2], max_tokens=20, priority=5), 0.0)
    run_step(scheduler)
    scheduler.add(make_request("urgent", [9, 9], max_tokens=2, priority=0), 0.0)
    scheduler.add(make_request("equal", [8, 8], max_tokens=2, priority=5), 0.0)
    plan, _ = run_step(scheduler)
    assert plan.preempted == ("b",)
    assert set(shares(plan)) == {"a", "urgent"}
    run_step(scheduler)
    plan, _ = run_step(scheduler)
    assert set(shares(plan)) == {"a", "b"}, "the preempted one returns before its equal that came later"


def test_an_urgent_waiter_takes_memory_but_never_in_vain() -> None:
    scheduler = make_scheduler(policy="priority", num_blocks=6, block_size=2, max_step_tokens=16, prefix_cache=False)
    scheduler.add(make_request("peer", [1] * 7, max_tokens=1000, priority=0), 0.0)
    scheduler.add(make_request("meek", [2] * 2, max_tokens=5, priority=9), 0.0)
    run_step(scheduler)
    scheduler.add(make_request("huge", [3] * 12, max_tokens=1, priority=0), 0.0)
    plan, _ = run_step(scheduler)
    assert plan.preempted == (), "even without meek the huge one would not fit beside its peer"
    scheduler.abort("huge", 0.0)
    scheduler.abort("peer", 0.0)
    scheduler.add(make_request("fits", [3] * 10, max_tokens=1, priority=0), 0.0)
    plan, _ = run_step(scheduler)
    assert plan.preempted == ("meek",)
    assert "fits" in shares(plan)


def test_stop_tokens_min_tokens_and_length() -> None:
    def end(tokens: list[int], **fields: object) -> tuple[int, FinishReason | None, int | str | None]:
        scheduler = make_scheduler(num_blocks=32)
        scheduler.add(make_request("r", [1], **fields), 0.0)  # type: ignore[arg-type]
        for count, token in enumerate(tokens, start=1):
            plan = scheduler.plan(0.0)
            (event,) = scheduler.commit(plan, StepResult({"r": Sample((token,))}), 0.0)
            if event.finish_reason:
                return count, event.finish_reason, event.stop_reason
        return len(tokens), None, None

    eos = frozenset({2})
    assert end([5, 2, 6], stop_ids=eos, max_tokens=9) == (2, FinishReason.STOP, None)
    assert end([5, 6], stop_ids=eos, max_tokens=2) == (2, FinishReason.LENGTH, None)
    named = SamplingParams(stop_token_ids=(7,))
    assert end([5, 7], stop_ids=eos | {7}, params=named, max_tokens=9) == (2, FinishReason.STOP, 7)
    patient = SamplingParams(min_tokens=2)
    assert end([2, 2, 2], stop_ids=eos, params=patient, max_tokens=9) == (3, FinishReason.STOP, None)


def test_several_tokens_a_step_end_exactly_where_one_at_a_time_would() -> None:
    scheduler = make_scheduler(num_blocks=32)
    scheduler.add(make_request("r", [1], max_tokens=10, stop_ids=frozenset({2})), 0.0)
    (event,) = scheduler.commit(scheduler.plan(0.0), StepResult({"r": Sample((4, 2, 9))}), 0.0)
    assert event.token_ids == (4, 2)
    assert event.finish_reason is FinishReason.STOP


def test_a_failed_request_ends_alone() -> None:
    scheduler = make_scheduler()
    for name in ("good", "bad"):
        scheduler.add(make_request(name, [1, 2]), 0.0)
    plan = scheduler.plan(0.0)
    events = scheduler.commit(plan, StepResult({"good": Sample((5,)), "bad": Sample((), error="NaN logits")}), 0.0)
    scheduler.check()
    assert [(e.request_id, e.finish_reason, e.error) for e in events] == [
        ("good", None, None),
        ("bad", FinishReason.ERROR, "NaN logits"),
    ]
    assert scheduler.num_running == 1


def test_a_failed_chunk_ends_its_request_and_offers_nothing_to_others() -> None:
    scheduler = make_scheduler(num_blocks=32, max_step_tokens=8)
    scheduler.add(make_request("long", list(range(20))), 0.0)
    plan = scheduler.plan(0.0)
    assert not plan.requests[0].samples
    (event,) = scheduler.commit(plan, StepResult({"long": Sample((), error="out of memory")}), 0.0)
    scheduler.check()
    assert (event.finish_reason, event.error) == (FinishReason.ERROR, "out of memory")
    assert scheduler.kv.match(make_request("next", list(range(20)))) == []


def test_abort_waiting_running_and_unknown() -> None:
    scheduler = make_scheduler(max_num_running=1)
    for name in ("runs", "waits"):
        scheduler.add(make_request(name, [1, 2]), 0.0)
    run_step(scheduler)
    for name in ("waits", "runs"):
        event = scheduler.abort(name, 1.0)
        assert event is not None
        assert event.finish_reason is FinishReason.ABORT
        scheduler.check()
    assert scheduler.abort("runs", 1.0) is None
    assert scheduler.kv.num_used_blocks == 0
    assert not scheduler.has_work


def test_aborted_while_the_step_ran() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("r", [1, 2]), 0.0)
    plan = scheduler.plan(0.0)
    scheduler.abort("r", 0.0)
    assert scheduler.commit(plan, StepResult({"r": Sample((5,))}), 0.0) == []
    scheduler.check()


def test_an_id_in_use_is_refused() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request("r", [1]), 0.0)
    with pytest.raises(InvalidRequestError, match="'r' is in use"):
        scheduler.add(make_request("r", [1]), 0.0)


def test_timings_and_cached_tokens_reach_the_terminal_event() -> None:
    scheduler = make_scheduler(num_blocks=32, max_step_tokens=32)
    scheduler.add(make_request("a", list(range(9)), max_tokens=1), 0.0)
    run_step(scheduler, 1.0)
    scheduler.add(make_request("b", list(range(9)), max_tokens=3, arrival_s=2.0), 2.0)
    run_step(scheduler, 3.0)
    run_step(scheduler, 5.0)
    _, (event,) = run_step(scheduler, 7.0)
    assert event.num_cached_tokens == 8
    assert event.timings is not None
    assert (event.timings.queue_s, event.timings.ttft_s, event.timings.tpot_s, event.timings.e2e_s) == (
        1.0,
        1.0,
        2.0,
        5.0,
    )


def test_contradictions_and_unknown_policies_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_step_tokens = 3 is below max_num_running = 4"):
        make_scheduler(max_step_tokens=3)
    with pytest.raises(ConfigError, match=r"unknown policy 'fcsf'; did you mean 'fcfs'\? known: fcfs, priority"):
        make_policy("fcsf")


def test_statistics_count_what_happened() -> None:
    scheduler = make_scheduler(num_blocks=32, max_step_tokens=32)
    scheduler.add(make_request("a", list(range(9)), max_tokens=1), 0.0)
    run_step(scheduler)
    scheduler.add(make_request("b", list(range(9)), max_tokens=2), 0.0)
    plan = scheduler.plan(0.0)
    stats = scheduler.stats(plan, StepResult(step_time_s=0.25))
    assert (stats.num_running, stats.num_waiting, stats.total_steps) == (1, 0, 2)
    assert (stats.total_prefix_query_tokens, stats.total_prefix_hit_tokens) == (18, 8)
    assert (stats.step_num_tokens, stats.step_num_requests, stats.step_time_s) == (1, 1, 0.25)
    assert stats.num_blocks_used == 3


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_nothing_is_computed_beyond_the_last_token_that_is_wanted(in_flight: int) -> None:
    """vllm#27922: one step too many for each request that ends by its length."""
    scheduler = make_scheduler(num_blocks=16, block_size=4, max_step_tokens=5)
    scheduler.add(make_request("a", [7] * 12, 6), 0.0)
    launched: list[Plan] = []
    computed = 0
    while scheduler.has_work or launched:
        plan = scheduler.plan(0.0)
        computed += plan.num_tokens
        launched += [plan] if plan.requests else []
        if len(launched) >= in_flight or not plan.requests:
            finish_step(scheduler, launched.pop(0), 0.0, 0.1)
    assert computed == 12 + 6 - 1


@pytest.mark.parametrize("ends_by", ["abort", "stop"])
def test_blocks_of_what_ends_in_flight_are_free_after_the_step_that_writes_them(ends_by: str) -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=4, prefix_cache=False)
    first = make_request("a", [7] * 8, 8)
    first.stop_ids = frozenset({next_token(first)} if ends_by == "stop" else ())
    scheduler.add(first, 0.0)
    prefill = scheduler.plan(0.0)
    decode = scheduler.plan(0.0)  # goes on with the token that the prefill samples
    assert [share.start for share in decode.requests] == [8]
    if ends_by == "abort":
        assert scheduler.abort("a", 0.0) is not None
    finish_step(scheduler, prefill, 0.0, 0.1)
    assert not scheduler.has_work and scheduler.kv.num_used_blocks == 3, "the decode in flight writes to the third"
    scheduler.add(make_request("a", [9] * 16, 1), 0.0)  # the id is free at once
    assert scheduler.plan(0.0).requests == (), "and waits for the blocks, displacing nobody"
    assert finish_step(scheduler, decode, 0.0, 0.1) == []
    (share,) = scheduler.plan(0.0).requests
    assert share.num_tokens == 16 and share.new is not None
