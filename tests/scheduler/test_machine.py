"""A hypothesis state machine drives scheduler and KV cache with random submissions, aborts, steps, evictions.

Invariants after every rule: the books balance (``check``), and every accepted request ends in exactly one terminal event,
with the same tokens that it would get alone. With several steps in flight, with drafts, and as an executor sees it that knows
only what plans say.
"""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from octavo.scheduler.policies import POLICIES
from octavo.types import DEFAULT_CLASS, DraftLimits, FinishReason, Plan, PlannedRequest, Request, ServiceClass
from support.scheduling import finish_step, make_request, make_scheduler, next_token

CLASSES = (
    DEFAULT_CLASS,
    ServiceClass(name="interactive", ttft_s=3.0, tpot_s=1.5, max_wait_s=10.0),
    ServiceClass(name="standard", ttft_s=9.0, tpot_s=4.0, max_wait_s=20.0, weight=2.0),
    ServiceClass(name="batch", max_wait_s=25.0, weight=0.5),
)

OWN_BUDGET = ("sarathi", "qoserve", "slidingserve", "slo")

PROMPTS = st.one_of(
    st.lists(st.integers(0, 1), min_size=1, max_size=20),  # few token values: prefixes repeat
    st.integers(1, 20).map(lambda n: [7] * n),
)


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(list(POLICIES)),
        block_size=st.sampled_from([1, 2, 3, 4]),
        max_num_running=st.integers(1, 5),
        extra_budget=st.integers(0, 12),
        prefix_cache=st.booleans(),
        max_in_flight=st.sampled_from([1, 1, 2, 3]),
        draft_limits=st.sampled_from([DraftLimits(), DraftLimits(2, 4), DraftLimits(5, 6)]),
        data=st.data(),
    )
    def build(
        self,
        policy: str,
        block_size: int,
        max_num_running: int,
        extra_budget: int,
        prefix_cache: bool,
        max_in_flight: int,
        draft_limits: DraftLimits,
        data: st.DataObject,
    ) -> None:
        self.policy = policy
        self.max_in_flight = max_in_flight
        self.in_flight: deque[Plan] = deque()
        longest = -(-28 // block_size)
        self.scheduler = make_scheduler(
            num_blocks=data.draw(st.integers(longest, 3 * longest)),
            block_size=block_size,
            policy=policy,
            max_num_running=max_num_running,
            max_step_tokens=max_num_running + extra_budget,
            prefix_cache=prefix_cache,
            draft_limits=draft_limits,
        )
        self.submitted: dict[str, Request] = {}
        self.outputs: dict[str, list[int]] = {}
        self.ends: dict[str, FinishReason] = {}
        self.reused: set[str] = set()
        self.num_ended_before = 0  # requests whose id was used again
        self.tables: dict[str, list[int]] = {}  # block tables as an executor knows them
        self.writes: dict[tuple[int, PlannedRequest], list[int]] = {}
        self.now = 0.0

    @rule(
        prompt=PROMPTS,
        max_tokens=st.integers(1, 8),
        priority=st.integers(0, 2),
        tenant=st.sampled_from(["", "t"]),
        promise=st.sampled_from(CLASSES),
    )
    def submit(self, prompt: list[int], max_tokens: int, priority: int, tenant: str, promise: ServiceClass) -> None:
        name = f"r{len(self.submitted)}"
        request = make_request(
            name,
            prompt,
            max_tokens,
            priority=priority,
            tenant=tenant,
            service_class=promise,
            arrival_s=self.now,
            stop_ids=frozenset({5, 6}),
        )
        self.submitted[name] = request
        self.outputs[name] = []
        self.scheduler.add(request, self.now)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.submitted)))
        event = self.scheduler.abort(name, self.now)
        assert (event is None) == (name in self.ends)
        if event is not None:
            self.ends[name] = FinishReason.ABORT

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.now += 0.1
            plan = self.launch()
            if len(self.in_flight) >= (self.max_in_flight if plan.requests else 1):
                self.commit()

    def launch(self) -> Plan:
        plan = self.scheduler.plan(self.now)
        if not self.in_flight:
            self.check_no_work_is_left_undone(plan)
            assert plan.num_tokens > 0 or not self.scheduler.has_work, "work, but nothing planned"
        num_drafts = sum(share.num_draft_tokens for share in plan.requests)
        assert plan.num_tokens == sum(share.num_tokens for share in plan.requests)
        assert plan.num_tokens + num_drafts <= self.scheduler.max_step_tokens
        self.executor_side(plan)
        assert not {share.request_id for share in plan.requests} & set(plan.preempted), "preempted and started again"
        self.check_nobody_overtakes()
        if plan.requests:
            self.in_flight.append(plan)
        return plan

    def executor_side(self, plan: Plan) -> None:
        """An executor that knows only what plans say computes what it knows, into blocks of its own."""
        for name in plan.forgotten:
            self.tables.pop(name, None)
        for share in plan.requests:
            if share.new is not None:
                self.tables[share.request_id] = []
            table = self.tables[share.request_id]
            table += share.new_block_ids
            end = share.start + share.num_tokens + share.num_draft_tokens
            assert end <= len(table) * self.scheduler.kv.block_size, "no room for what is to be computed"
            assert table == self.scheduler.kv.block_table(share.request_id)
        ours = [block for share in plan.requests for block in self.written(share)]
        assert len(ours) == len(set(ours)), "two requests write to one block"
        for earlier in self.in_flight:
            theirs = {
                (block, share.request_id) for share in earlier.requests for block in self.writes[earlier.step, share]
            }
            mine = {(block, share.request_id) for share in plan.requests for block in self.written(share)}
            clash = {block for block, name in theirs} & {block for block, name in mine - theirs}
            assert not clash, "a block that a step in flight writes was given away"
        self.writes |= {(plan.step, share): self.written(share) for share in plan.requests}

    def written(self, share: PlannedRequest) -> list[int]:
        size = self.scheduler.kv.block_size
        last = share.start + share.num_tokens + share.num_draft_tokens - 1
        return self.tables[share.request_id][share.start // size : last // size + 1]

    def commit(self) -> None:
        plan = self.in_flight.popleft()
        step_time_s = 0.3 + 0.05 * plan.num_tokens  # forecasts and deadlines have something to do
        events = finish_step(self.scheduler, plan, self.now, step_time_s)
        self.now += step_time_s
        for event in events:
            assert event.request_id not in self.ends, "an event after the end"
            self.outputs[event.request_id] += event.token_ids
            if event.finish_reason:
                self.ends[event.request_id] = event.finish_reason

    def check_no_work_is_left_undone(self, plan: Plan) -> None:
        """Theorem 3. Every decode is served in every step; budget stays unused only if nobody who fits could use it."""
        scheduler, planned = self.scheduler, {share.request_id: share for share in plan.requests}
        for request in scheduler._running:
            left = len(request.token_ids) - request.num_computed_tokens  # before this step: nothing is in flight
            share = planned.get(request.request_id)
            assert share is not None or left > 1, "a decode was passed over"
            if self.policy not in OWN_BUDGET and plan.num_tokens < scheduler.max_step_tokens:
                assert share is not None and share.num_tokens == left, "budget left, and a prefill that could use it"
        head = scheduler._waiting.first(self.now)
        if self.policy in OWN_BUDGET or plan.num_tokens == scheduler.max_step_tokens or head is None:
            return
        fixed = scheduler._waiting.is_non_preemptible(head)
        needs = head.num_prompt_tokens + head.max_tokens if fixed else len(head.token_ids)
        assert (
            scheduler.num_running == scheduler.max_num_running
            or scheduler.kv.missing_blocks(needs, scheduler.kv.match(head)) > 0
            or head.request_id in plan.preempted
        ), "budget left, and the head of the queue fits"

    def check_nobody_overtakes(self) -> None:
        if self.policy != "fcfs":
            return
        alive = [self.submitted[name] for name in self.submitted if name not in self.ends]
        running = [r.sequence_number for r in alive if r.num_computed_tokens > 0]
        waiting = [r.sequence_number for r in alive if r.num_computed_tokens == 0 and r.first_scheduled_s is None]
        assert not running or not waiting or max(running) < min(waiting), "a later arrival runs before an earlier one"

    @rule()
    def step_that_fails_a_request(self) -> None:
        plan = self.launch()
        for share in plan.requests[:1]:
            assert (self.scheduler.abort(share.request_id, self.now, error="boom") is None) == (
                share.request_id in self.ends
            )
            self.ends.setdefault(share.request_id, FinishReason.ERROR)
        while self.in_flight:
            self.commit()

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def use_an_id_again(self, data: st.DataObject) -> None:
        """At once after its end, although a step in flight may still have the request that bore it before."""
        name = data.draw(st.sampled_from(sorted(self.submitted)))
        if name in self.ends and name not in self.reused:
            self.reused.add(name)
            again = make_request(name, [3, 1, 2], 3, arrival_s=self.now)
            self.scheduler.add(again, self.now)
            self.num_ended_before += 1
            del self.ends[name]
            self.outputs[name], self.submitted[name] = [], again

    @rule()
    def evict(self) -> None:
        self.scheduler.kv.drop_cached()

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check(self.now)
            alive = self.scheduler.num_running + self.scheduler.num_waiting
            assert alive + len(self.ends) == len(self.submitted)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for _ in range(5_000):
            if not self.scheduler.has_work and not self.in_flight:
                break
            self.step(1)
        assert self.ends.keys() == self.submitted.keys(), "a request never ended"
        assert self.scheduler.kv.num_used_blocks == 0
        for name, request in self.submitted.items():
            if self.ends[name] in (FinishReason.STOP, FinishReason.LENGTH):
                assert self.outputs[name] == alone(request), name


def alone(request: Request) -> list[int]:
    """What the request's tokens must be, whoever else was there."""
    copy = make_request("copy", request.token_ids[: request.num_prompt_tokens])
    while copy.num_output_tokens < request.max_tokens:
        copy.token_ids.append(next_token(copy))
        if copy.token_ids[-1] in request.stop_ids:
            break
    return copy.token_ids[copy.num_prompt_tokens :]


# Its walks (400, a thousand with --exhaustive) go through lines that other tests cover; a trace would double its time.
TestSchedulerMachine = pytest.mark.no_cover(SchedulerMachine.TestCase)
TestSchedulerMachine.settings = settings(
    max_examples=4 * settings().max_examples, stateful_step_count=25, deadline=None
)
