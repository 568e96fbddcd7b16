"""Scheduler: continuous batching with chunked prefill under a token budget, preemption, steps in flight.

``plan`` decides, ``commit`` records what the executor did. Both are pure bookkeeping: no torch, no clock, no I/O. Every
request that ``add`` accepts ends in exactly one terminal event. A step may be planned before the one before it is committed: it
goes on where that one will leave off. What it computes for a request that turns out to have ended is thrown away, whose blocks
are free only then. A request in flight is never preempted: it is left out of one step first.

Why this always makes progress, whatever the policy does: a request is preempted at most ``MAX_PREEMPTIONS`` times. Then it is
*non-preemptible*: it waits before everybody who is not, in order of arrival; when it starts it gets the blocks of its longest
possible end at once; and nobody takes its place. ``check_fits`` made sure that the cache can hold it alone, so it runs and ends.
"""

from __future__ import annotations

import msgspec

from octavo.errors import ConfigError, InvalidRequestError
from octavo.kvcache.cache import KVCache
from octavo.scheduler.admission import Admission, TenantLimits
from octavo.scheduler.drafts import allow_drafts
from octavo.scheduler.in_flight import StepsInFlight
from octavo.scheduler.outcome import advance, timings
from octavo.scheduler.plan_builder import PlanBuilder, share_of, unsent_blocks
from octavo.scheduler.policy import Policy
from octavo.scheduler.queue import RunningRequests, WaitingRequests
from octavo.scheduler.totals import Totals
from octavo.types import (
    DraftLimits,
    EngineStats,
    FinishReason,
    Plan,
    Request,
    Sample,
    StepResult,
    TokenEvent,
)

MAX_PREEMPTIONS = 3


class Scheduler:
    """Owns every request from ``add`` to its terminal event."""

    def __init__(
        self,
        policy: Policy,
        kv: KVCache,
        *,
        max_num_running: int,
        max_step_tokens: int,
        admission: Admission | None = None,
        draft_limits: DraftLimits = DraftLimits(),  # noqa: B008 - immutable
    ) -> None:
        if max_step_tokens < max_num_running:
            raise ConfigError(
                f"max_step_tokens = {max_step_tokens} is below max_num_running = {max_num_running}: "
                "every running request needs at least one token a step; raise the one or lower the other",
                param="max_step_tokens",
            )
        self.kv = kv
        self.policy = policy
        self.max_num_running = max_num_running
        self.max_step_tokens = max_step_tokens
        policy.forecast.kv_tokens = kv.num_blocks * kv.block_size
        self.admission = admission or Admission(
            policy.forecast, TenantLimits(), policy.forecast.classes, kv_tokens=policy.forecast.kv_tokens
        )
        policy.forecast.cached_tokens = lambda request: len(kv.match(request)) * kv.block_size
        self._requests: dict[str, Request] = {}
        self._running = RunningRequests(policy)
        self._waiting = WaitingRequests(policy, MAX_PREEMPTIONS)
        self._draft_limits = draft_limits
        self._in_flight = StepsInFlight(policy.forecast.step_time)
        self._forgotten: list[str] = []  # known to the executor, and gone
        self._num_added = 0
        self._totals = Totals()

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def add(self, request: Request, now: float) -> None:
        """Queue a request that fits (see ``kvcache.fit``). Raises ``InvalidRequestError`` if its id is in use, and what
        ``admission`` raises."""
        if request.request_id in self._requests:
            raise InvalidRequestError(f"request id {request.request_id!r} is in use", param="request_id")
        self.admission.check(request, self._requests.values(), self.max_step_tokens, now)
        self.admission.entered(request)
        request.sequence_number = self._num_added
        self._num_added += 1
        self._requests[request.request_id] = request
        self._waiting.add(request, now)

    def abort(self, request_id: str, now: float, error: str | None = None) -> TokenEvent | None:
        """End a request at once and free its blocks; None if it is unknown or has ended. With ``error``: it failed."""
        request = self._requests.get(request_id)
        if request is None:
            return None
        if error is not None:
            return self._fail(request, error, now)
        return self._end(request, TokenEvent(request_id=request_id, time_s=now, finish_reason=FinishReason.ABORT), now)

    def abort_all(self, now: float, error: str | None = None) -> list[TokenEvent]:
        ends = (self.abort(request_id, now, error) for request_id in list(self._requests))
        return [event for event in ends if event is not None]

    # -- plan ----------------------------------------------------------------------------------------------------------

    def plan(self, now: float) -> Plan:
        """Who computes which tokens in the next step. Decodes come first, so a long prefill never stalls them."""
        self._totals.total_steps += 1
        planned_s, now = now, self._in_flight.start_s(now)  # policies look at the moment in which the step begins
        self._running.refresh(now)
        decodes, prefills = self._running.split()
        wanted = self.policy.token_budget(decodes, prefills, self.max_step_tokens, now)
        budget = min(max(wanted, len(decodes), 1), self.max_step_tokens)
        builder = PlanBuilder(planned_s, now, budget)
        self._plan_decodes(builder, decodes)
        for prefill in prefills:  # one that waits and ranks before it is not held up by it, however long it is
            self._plan_waiting(builder, before=prefill)
            self._plan_prefill(builder, prefill)
        self._plan_waiting(builder)
        num_tokens = budget - builder.budget
        if self._draft_limits.num_tokens:
            sampling = [self._requests[share.request_id] for share in builder.planned.values() if share.samples]
            allow_drafts(builder, sampling, self.kv, self._draft_limits)
        return self._launched(builder, num_tokens)

    def _launched(self, builder: PlanBuilder, num_tokens: int) -> Plan:
        if not builder.planned:
            return Plan(self._totals.total_steps, (), preempted=tuple(builder.preempted))
        plan = builder.plan(self._totals.total_steps, num_tokens, tuple(self._forgotten))
        self._forgotten = []
        self._in_flight.add(plan, [self._requests[share[0]] for share in plan.requests], builder.planned_s)
        return plan

    def _plan_decodes(self, builder: PlanBuilder, decodes: list[Request]) -> None:
        """One token each, which the budget always has. Written for hundreds of them."""
        tables, block_size, planned, gave_way = self.kv.tables, self.kv.block_size, builder.planned, builder.gave_way
        for request in decodes:
            request_id, start = request.request_id, request.num_planned_tokens
            if request_id in gave_way:
                continue  # to one before it
            table = tables[request_id]
            if start < len(table) * block_size or self._make_room(builder, request, start + 1):
                builder.budget -= 1
                request.num_planned_tokens = start + 1
                blocks = () if len(table) == request.num_sent_blocks else unsent_blocks(request, table)
                planned[request_id] = share_of((request_id, start, 1, True, blocks, 0, None))

    def _plan_prefill(self, builder: PlanBuilder, request: Request) -> None:
        if builder.budget <= 0 or request.request_id in builder.gave_way:
            return
        start = request.num_planned_tokens
        num_tokens = min(len(request.token_ids) - start, builder.budget)
        has_room = start + num_tokens <= len(self.kv.block_table(request.request_id)) * self.kv.block_size
        if has_room or self._make_room(builder, request, start + num_tokens):
            builder.put(request, num_tokens, self.kv.block_table(request.request_id))

    def _make_room(self, builder: PlanBuilder, request: Request, num_tokens: int) -> bool:
        """Extend the request's table, preempting from the back of the ranks; False if it must do without in this step."""
        while not self.kv.extend(request.request_id, num_tokens):
            if self.kv.num_retiring_blocks:
                return False  # they will be free when the step in flight is done
            victim = next(one for one in self._running.backwards() if not self._waiting.is_non_preemptible(one))
            if not self._preempt(builder, victim) or victim is request:
                return False
        return True

    def _plan_waiting(self, builder: PlanBuilder, before: Request | None = None) -> None:
        """Start those that wait, in order; with ``before``, only those that rank before that running request."""
        while builder.budget > 0 and not builder.is_blocked:
            request = self._waiting.first(builder.now)
            if request is None:
                return
            rank, now = self.policy.rank, builder.now
            ranks_behind = before is not None and rank(request, now) > rank(before, now)
            if ranks_behind and not self._waiting.is_non_preemptible(request):
                return
            # Nobody overtakes what was preempted in this step, and starting that again at once would only thrash.
            builder.is_blocked = request.request_id in builder.gave_way or not self._start(builder, request)

    def _start(self, builder: PlanBuilder, request: Request) -> bool:
        """Move the head of the queue to the running ones. It gets blocks for all its known tokens now, so that a prefill
        in chunks is never caught half-way by a later start; a non-preemptible one gets all that it can ever need."""
        num_tokens = len(request.token_ids)
        if self._waiting.is_non_preemptible(request):
            num_tokens = request.num_prompt_tokens + request.max_tokens
        if len(self._running) >= self.max_num_running and not self._displace(builder, request, num_blocks=0):
            return False
        matched = self.kv.match(request)
        while (num_missing := self.kv.missing_blocks(num_tokens, matched)) > 0:
            if num_missing <= self.kv.num_retiring_blocks or not self._displace(builder, request, num_missing):
                return False
            matched = self.kv.match(request)
        self._waiting.remove(request, builder.now)
        self.kv.start(request, num_tokens, matched)
        num_cached = len(matched) * self.kv.block_size
        request.num_computed_tokens = request.num_planned_tokens = num_cached
        if request.first_scheduled_s is None:
            request.first_scheduled_s = builder.planned_s
            request.num_cached_tokens = num_cached
            self._totals.total_prompt_tokens += request.num_prompt_tokens
            self._totals.total_prefix_query_tokens += request.num_prompt_tokens
            self._totals.total_prefix_hit_tokens += num_cached
        self.policy.started(request, builder.now)
        self._running.add(request, builder.now)
        num_tokens = min(len(request.token_ids) - num_cached, builder.budget)
        builder.put(request, num_tokens, self.kv.block_table(request.request_id))
        return True

    def _displace(self, builder: PlanBuilder, waiting: Request, num_blocks: int) -> bool:
        """Preempt the last-ranked running request for a waiting one, if the policy allows it and if all that it allows
        would free ``num_blocks`` (else the sacrifice would be for nothing)."""
        policy, now, allowed = self.policy, builder.now, 0
        victim: Request | None = None
        for running in self._running.backwards(behind=policy.rank(waiting, now)):
            if self._waiting.is_non_preemptible(running) or not policy.may_preempt(waiting, running, now):
                continue
            victim = victim or running
            allowed += len(self.kv.block_table(running.request_id))
            if allowed >= num_blocks:
                return self._preempt(builder, victim)
        return False

    def _preempt(self, builder: PlanBuilder, victim: Request) -> bool:
        """Back to the queue, at the place of its rank; its blocks are freed (full ones stay in the prefix cache). One in
        flight is only left out of this step: False, and the next one can preempt it."""
        builder.take_back(victim)
        if victim.is_in_flight:
            return False
        self._running.remove(victim)
        self._forget(victim)
        self.kv.release(victim.request_id)
        victim.num_computed_tokens = victim.num_planned_tokens = 0
        victim.num_preemptions += 1
        self._totals.total_preemptions += 1
        builder.preempted.append(victim.request_id)
        self._waiting.add(victim, builder.now)
        return True

    def _forget(self, request: Request) -> None:
        """Its blocks are about to go, and what the executor knows of it."""
        if request.num_sent_blocks:
            self._forgotten.append(request.request_id)
            request.num_sent_blocks = 0

    # -- commit --------------------------------------------------------------------------------------------------------

    def commit(self, plan: Plan, result: StepResult, now: float) -> list[TokenEvent]:
        """Record a finished step: advance, offer full blocks to others, detect the end. Returns what clients must hear."""
        if not plan.requests:
            return []
        step = self._in_flight.take(plan, now)
        block_size, present, sampled = self.kv.block_size, self._requests, result.samples
        committed = self.policy.committed
        self.policy.forecast.step_time.observe(step.load.with_drafts(result.num_draft_tokens), result.step_time_s)
        events = []
        for share, request in zip(plan.requests, step.requests, strict=True):
            request_id, start, num_tokens, samples, _, num_draft_tokens, _ = share
            if present.get(request_id) is not request:
                continue  # ended while the step was in flight
            sample = sampled.get(request_id)
            if sample is not None and sample.error is not None:  # even a chunk can fail: nothing of it may be kept
                events.append(self._fail(request, sample.error, now))
                continue
            request.num_computed_tokens = computed = start + num_tokens
            if num_draft_tokens:
                request.is_drafting = False
            if computed % block_size < num_tokens:  # a block became full
                self.kv.commit(request)
            committed(request, num_tokens, len(sample.token_ids) if sample is not None else 0, now)
            if samples:
                events.append(self._advance(request, sampled[request_id], now))
        self.kv.free_retired(plan.step)
        self._totals.total_draft_tokens += result.num_draft_tokens
        self._totals.total_accepted_tokens += result.num_accepted_tokens
        return events

    def _advance(self, request: Request, sample: Sample, now: float) -> TokenEvent:
        event = advance(request, sample, now)
        if event.finish_reason is not None:
            return self._end(request, event, now)
        if sample.num_computed:
            self._keep_computed(request, sample.num_computed)
        return event

    def _keep_computed(self, request: Request, num_tokens: int) -> None:
        """Speculation has written the keys and values of new tokens already; the last of them always remains to be done."""
        before = request.num_computed_tokens
        request.num_computed_tokens = min(before + num_tokens, len(request.token_ids) - 1)
        request.num_planned_tokens = request.num_computed_tokens
        if request.num_computed_tokens // self.kv.block_size > before // self.kv.block_size:
            self.kv.commit(request)

    def _fail(self, request: Request, error: str, now: float) -> TokenEvent:
        event = TokenEvent(request_id=request.request_id, time_s=now, finish_reason=FinishReason.ERROR, error=error)
        return self._end(request, event, now)

    def _end(self, request: Request, event: TokenEvent, now: float) -> TokenEvent:
        """The one place where a request leaves the scheduler."""
        del self._requests[request.request_id]
        if self.kv.holds(request.request_id):
            self._running.remove(request)
        else:
            self._waiting.remove(request, now)
        self._forget(request)
        newest = self._in_flight.newest
        if newest is not None and request.is_in_flight:
            self.kv.retire(request.request_id, newest)
        else:
            self.kv.release(request.request_id)
        self.policy.ended(request, now)
        self.admission.ended(request)
        if event.finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
            self.policy.forecast.lengths.observe(request)
        return msgspec.structs.replace(
            event, num_cached_tokens=request.num_cached_tokens, timings=timings(request, event.time_s)
        )

    # -- facts ---------------------------------------------------------------------------------------------------------

    def stats(self, plan: Plan, result: StepResult) -> EngineStats:
        return EngineStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            num_blocks=self.kv.num_blocks,
            num_blocks_used=self.kv.num_used_blocks,
            step_time_s=result.step_time_s,
            step_num_tokens=plan.num_tokens,
            step_num_requests=len(plan.requests),
            step_time_error=self.policy.forecast.step_time.error,
            **msgspec.structs.asdict(self._totals),
        )

    def check(self, now: float = 0.0) -> None:
        """AssertionError if the books do not balance. For tests, after every step."""
        waiting = {request.request_id for request in self._waiting}
        running = {request.request_id for request in self._running}
        assert len(running) == len(self._running), "a request runs twice"
        assert not waiting & running, "a request waits and runs"
        assert waiting | running == self._requests.keys(), "a request is lost"
        assert len(running) <= self.max_num_running
        assert all(one.num_preemptions <= MAX_PREEMPTIONS for one in self._requests.values())
        self._waiting.check(now)
        assert not any(self.kv.holds(request_id) for request_id in waiting), "a waiting request holds blocks"
        self._running.check(self.kv)
        assert self._in_flight or not any(one.is_in_flight for one in self._running), "in flight, and no step is"
        numbers = self.kv.check()
        held = numbers["held"] > self.kv.num_retiring_blocks
        assert held == bool(self._running), f"blocks held by nobody, or running without: {numbers}"
