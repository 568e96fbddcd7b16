"""Scheduling policies: order of starts, preemption victims, token budget of a step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.kvcache.cache import KVCache
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies import POLICIES, make_policy
from octavo.scheduler.policies.slo import Task, largest_on_time
from octavo.scheduler.scheduler import Scheduler
from octavo.scheduler.step_time import StepLoad
from octavo.types import Plan, Request, ServiceClass
from support.scheduling import make_request, make_scheduler, run_step, run_to_end

INTERACTIVE = ServiceClass(name="interactive", ttft_s=0.5, tpot_s=0.05, max_wait_s=10.0)
STANDARD = ServiceClass(name="standard", ttft_s=2.0, tpot_s=0.1, max_wait_s=20.0)
BATCH = ServiceClass(name="batch", max_wait_s=20.0)
STEP_S, TOKEN_S = 0.005, 5e-5


class Machine:
    """A scheduler whose steps take ``STEP_S`` and ``TOKEN_S`` a token, which its forecast has learned."""

    def __init__(self, policy: str, *, slots: int = 2, budget: int = 1024, num_blocks: int = 4096) -> None:
        self.forecast = Forecast(classes=(INTERACTIVE, STANDARD, BATCH))
        for i in range(64):
            rows, tokens = i % 7, (i * 37) % 900
            self.forecast.step_time.observe(StepLoad(tokens, rows, 100 * rows), STEP_S + TOKEN_S * (tokens + rows))
        policy_ = make_policy(policy, self.forecast)
        self.scheduler = Scheduler(policy_, KVCache(num_blocks, 16), max_num_running=slots, max_step_tokens=budget)
        self.now = 100.0
        self.started: list[str] = []
        self.ended: list[str] = []
        self.num_steps = 0

    def add(self, name: str, num_tokens: int, max_tokens: int = 4, **fields: object) -> Request:
        tokens = [(crc32(name.encode()) + i) % 997 for i in range(num_tokens)]
        request = make_request(name, tokens, max_tokens, **({"arrival_s": self.now} | fields))
        self.scheduler.add(request, self.now)
        return request

    def step(self) -> Plan:
        self.num_steps += 1
        plan, events = run_step(self.scheduler, self.now, STEP_S, TOKEN_S, check=self.num_steps % 64 == 0)
        self.now += STEP_S + TOKEN_S * plan.num_tokens
        self.ended = [event.request_id for event in events if event.finish_reason is not None]
        self.started += [
            share.request_id
            for share in plan.requests
            if share.new is not None and len(share.new.token_ids) == share.new.num_prompt_tokens
        ]
        return plan

    def run(self, seconds: float = 1e9) -> None:
        end_s = self.now + seconds
        while self.scheduler.has_work and self.now < end_s:
            self.step()


@pytest.mark.parametrize(
    ("policy", "order"),
    [
        ("fcfs", "a b c d"),
        ("priority", "d b a c"),
        ("priority-ageing", "d b a c"),
        ("sjf", "c b d a"),
        ("mlfq", "c d b a"),  # c and d join the first level, where d came later; a's prompt joins the last
        ("edf", "b d c a"),
        ("qoserve", "b d c a"),
        ("slidingserve", "b d a c"),
        ("slo", "b d c a"),
    ],
)
def test_who_starts_next(policy: str, order: str) -> None:
    machine = Machine(policy, slots=1)
    machine.add("a", 900, 300, priority=2, service_class=BATCH)
    machine.add("b", 300, 100, priority=1, service_class=INTERACTIVE)
    machine.add("c", 30, 30, priority=2, service_class=ServiceClass(max_wait_s=15.0))
    machine.add("d", 200, 256, priority=0, service_class=STANDARD)
    machine.run()
    assert machine.started == order.split()


@pytest.mark.parametrize("policy", ["vtc", "dlpm", "slo"])
def test_a_greedy_tenant_does_not_take_the_share_of_others(policy: str) -> None:
    machine = Machine(policy, slots=4)
    greedy = [machine.add(f"g{i}", 400, 40, tenant="greedy") for i in range(100)]
    for i in range(60):
        machine.add(f"p{i}", 400, 40, tenant="polite")
    while "p19" not in machine.started:
        machine.step()
    num_greedy = sum(request.request_id in machine.started for request in greedy)
    assert 15 <= num_greedy <= 60, "about as many as the polite one's, and what deadlines may lead by"


def test_the_longest_prefix_goes_first_while_there_is_credit() -> None:
    machine = Machine("dlpm", slots=1)
    shared = list(range(640))
    machine.scheduler.add(make_request("first", shared, 2), machine.now)
    machine.run()
    machine.add("stranger", 640)
    machine.scheduler.add(make_request("cousin", [*shared, 1, 2, 3], 2), machine.now)
    machine.step()
    assert machine.started == ["first", "cousin"]


@pytest.mark.parametrize("policy", ["sarathi", "qoserve", "slidingserve", "slo"])
def test_a_long_prefill_leaves_decodes_their_time(policy: str) -> None:
    machine = Machine(policy, budget=8192)
    machine.add("talks", 50, 200, service_class=INTERACTIVE)
    machine.step()
    machine.add("huge", 50_000, 2, service_class=BATCH)
    steps = []
    while "talks" not in machine.ended:
        before = machine.now
        machine.step()
        steps.append(machine.now - before)
    assert sum(steps) / len(steps) <= 0.05 * 1.05, "the mean step is within the promised time per token"
    assert max(steps) > 0.03, "and uses it"


@pytest.mark.parametrize("policy", ["priority", "mlfq", "edf", "qoserve", "slidingserve", "slo"])
def test_a_short_urgent_request_is_not_held_up_by_a_prefill_that_runs(policy: str) -> None:
    machine = Machine(policy, slots=8)
    machine.add("huge", 60_000, 2, service_class=BATCH, priority=1)
    machine.step()
    short = machine.add("short", 100, 2, service_class=INTERACTIVE)
    machine.run(seconds=0.5)
    assert short.first_token_s is not None
    assert short.first_token_s - short.arrival_s < 0.5


def test_slo_takes_a_slot_from_best_effort_only_when_it_must() -> None:
    machine = Machine("slo", slots=2)
    best_effort = [machine.add(f"b{i}", 64, 500, service_class=BATCH) for i in range(2)]
    machine.step()
    urgent = machine.add("urgent", 64, 4, service_class=INTERACTIVE)
    assert machine.step().preempted == (), "there is time: a slot may come free"
    machine.run(seconds=0.5)
    assert sum(request.num_preemptions for request in best_effort) == 1
    assert urgent.first_token_s is not None and urgent.first_token_s <= urgent.arrival_s + 0.5


def test_slo_gives_up_the_heaviest_when_not_all_can_be_on_time() -> None:
    machine = Machine("slo", slots=8, budget=1024)
    heavy = machine.add("heavy", 9_000, 1, service_class=INTERACTIVE)
    machine.now += 0.01
    light = [machine.add(f"l{i}", 1_000, 1, service_class=INTERACTIVE) for i in range(6)]
    machine.run()
    assert all(request.first_token_s - request.arrival_s <= 0.5 for request in light if request.first_token_s)
    assert heavy.first_token_s is not None and heavy.first_token_s - heavy.arrival_s > 0.5


def test_slo_serves_what_is_late_by_how_soon_it_was_promised() -> None:
    machine = Machine("slo", slots=8, budget=64)
    came_s = machine.now
    names = {"batch": BATCH, "standard": STANDARD, "interactive": INTERACTIVE}
    machine.now += 10.0  # every promise is broken already
    late = {name: machine.add(name, 640, 1, service_class=one, arrival_s=came_s) for name, one in names.items()}
    machine.run()
    first = sorted(names, key=lambda name: late[name].first_token_s or 0.0)
    assert first == ["interactive", "standard", "batch"]


def test_slo_serves_best_effort_within_its_bound_under_urgent_load() -> None:
    machine = Machine("slo", slots=4)
    best_effort = machine.add("patient", 200, 4, service_class=BATCH)
    for i in itertools.count():
        while machine.scheduler.num_waiting < 6:
            machine.add(f"u{i}-{machine.scheduler.num_waiting}", 800, 8, service_class=INTERACTIVE)
        machine.step()
        if best_effort.first_scheduled_s is not None or machine.now > 130:
            break
    assert best_effort.first_scheduled_s is not None
    assert 5.0 < best_effort.first_scheduled_s - best_effort.arrival_s <= 20.0


@pytest.mark.parametrize("policy", list(POLICIES))
def test_preempted_at_most_k_times_and_everybody_ends(policy: str) -> None:
    machine = Machine(policy, slots=4, num_blocks=12, budget=64)
    requests = [
        machine.add(f"r{i}", 30, 100, tenant=str(i % 3), service_class=(INTERACTIVE, BATCH)[i % 2], priority=i % 3)
        for i in range(12)
    ]
    for _ in range(20_000):
        if not machine.scheduler.has_work:
            break
        machine.step()
    assert not machine.scheduler.has_work
    assert max(request.num_preemptions for request in requests) <= 3
    assert all(request.num_output_tokens == 100 for request in requests)


def test_a_non_preemptible_request_is_neither_overtaken_nor_preempted() -> None:
    machine = Machine("priority", slots=1)
    victim = machine.add("victim", 20, 50, priority=9)
    machine.step()
    for i in range(5):
        machine.add(f"urgent{i}", 20, 3, priority=0)
        machine.step()
    assert victim.num_preemptions <= 3
    machine.run()
    assert victim.num_preemptions == 3 or victim.num_output_tokens == 50


def test_ageing_lets_the_least_urgent_run() -> None:
    def wait(policy: str) -> float:
        machine = Machine(policy, slots=1)
        meek = machine.add("meek", 20, 2, priority=1)
        for i in range(5_000):
            if machine.scheduler.num_waiting < 3:
                machine.add(f"u{i}", 1000, 4, priority=0)
            machine.step()
            if meek.first_scheduled_s is not None or machine.now > 130:
                break
        return machine.now - meek.arrival_s

    assert wait("priority") > 29
    assert 10 < wait("priority-ageing") < 12


def test_no_request_is_lost_when_its_prompt_can_never_be_on_time() -> None:
    machine = Machine("slo")
    impossible = ServiceClass(name="x", ttft_s=0.001, tpot_s=0.001, max_wait_s=5.0)
    request = machine.add("r", 500, 5, service_class=impossible)
    machine.run()
    assert request.num_output_tokens == 5


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), max_size=9))
def test_the_set_that_is_kept_is_the_largest_that_can_be_on_time(jobs: list[tuple[int, int]]) -> None:
    """Against every subset, each in order of due time (Jackson: if any order is on time, this one is)."""
    tasks = sorted((Task(make_request("r", [1]), float(work), float(due)) for work, due in jobs), key=lambda t: t.due)

    def on_time(chosen: Sequence[Task]) -> bool:
        ends = itertools.accumulate(task.seconds for task in chosen)
        return all(end <= task.due for end, task in zip(ends, chosen, strict=True))

    kept = largest_on_time(tasks, 0.0)
    assert on_time(kept)
    sizes = range(len(tasks) + 1)
    assert len(kept) == max(n for n in sizes if any(on_time(some) for some in itertools.combinations(tasks, n)))


def test_slo_plans_when_decodes_alone_fill_every_step() -> None:
    """Found by the state machine: without room for prefill its rate was forecast as 0, and the next decision divided by it."""
    scheduler = make_scheduler(policy="slo", max_num_running=1, max_step_tokens=1)
    scheduler.add(make_request("a", [1], 40), 0.0)
    for step in range(20):  # enough for the forecast to be asked
        run_step(scheduler, float(step), 0.3)
    scheduler.add(make_request("b", [1] * 5, 2, service_class=ServiceClass(ttft_s=1000.0)), 20.0)
    assert run_to_end(scheduler, step_s=0.3)["b"]
