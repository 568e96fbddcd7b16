"""WHO runs next and how many tokens each: continuous batching with chunked prefill under a token budget.

``plan`` decides, ``commit`` records what the executor did. Both are pure bookkeeping: no torch, no clock, no I/O. Every
request that ``add`` accepts ends in exactly one terminal event.

Why this always makes progress, whatever the policy does: a request is preempted at most ``max_preemptions`` times.
After the last one it is *pinned*: it waits before everybody who is not, in order of arrival; when it starts it gets the
blocks of its longest possible end at once, so it never asks for more; and nobody takes its place. ``check_fits`` made
sure that the cache can hold it alone, so it gets them, runs and ends.
"""

from __future__ import annotations

import msgspec

from octavo.errors import ConfigError, InvalidRequestError
from octavo.kvcache.cache import KVCache
from octavo.scheduler.admission import Admission, TenantLimits
from octavo.scheduler.draft import Draft, share_of
from octavo.scheduler.outcome import accept, timings
from octavo.scheduler.policy import Policy
from octavo.scheduler.queue import RunningRequests, WaitingRequests
from octavo.scheduler.step_time import load_of
from octavo.scheduler.totals import Totals
from octavo.types import (
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
        max_preemptions: int = MAX_PREEMPTIONS,
        admission: Admission | None = None,
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
        self.max_preemptions = max_preemptions
        policy.forecast.kv_tokens = kv.num_blocks * kv.block_size
        self.admission = admission or Admission(
            policy.forecast, TenantLimits(), policy.forecast.classes, kv_tokens=policy.forecast.kv_tokens
        )
        policy.forecast.cached_tokens = lambda request: len(kv.match(request)) * kv.block_size
        self._requests: dict[str, Request] = {}
        self._running = RunningRequests(policy)
        self._waiting = WaitingRequests(policy, max_preemptions)
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
        self._running.refresh(now)
        decodes, prefills = self._running.split()
        wanted = self.policy.token_budget(decodes, prefills, self.max_step_tokens, now)
        budget = min(max(wanted, len(decodes), 1), self.max_step_tokens)
        draft = Draft(now, budget)
        self._plan_decodes(draft, decodes)
        for prefill in prefills:  # one that waits and ranks before it is not held up by it, however long it is
            self._plan_waiting(draft, before=prefill)
            self._plan_prefill(draft, prefill)
        self._plan_waiting(draft)
        return draft.plan(self._totals.total_steps, budget - draft.budget)

    def _plan_decodes(self, draft: Draft, decodes: list[Request]) -> None:
        """One token each, which the budget always has. Written for hundreds of them."""
        tables, block_size, planned, preempted = self.kv.tables, self.kv.block_size, draft.planned, draft.preempted
        for request in decodes:
            request_id, start = request.request_id, request.num_computed_tokens
            if request_id in preempted:
                continue  # gave way to one before it
            table = tables[request_id]
            if start < len(table) * block_size or self._make_room(draft, request, start + 1):
                draft.budget -= 1
                planned[request_id] = share_of((request, start, 1, table, True))

    def _plan_prefill(self, draft: Draft, request: Request) -> None:
        if draft.budget <= 0 or request.request_id in draft.preempted:
            return
        start = request.num_computed_tokens
        num_tokens = min(len(request.token_ids) - start, draft.budget)
        has_room = start + num_tokens <= len(self.kv.block_table(request.request_id)) * self.kv.block_size
        if has_room or self._make_room(draft, request, start + num_tokens):
            draft.put(request, num_tokens, self.kv.block_table(request.request_id))

    def _make_room(self, draft: Draft, request: Request, num_tokens: int) -> bool:
        """Extend the request's table, preempting from the back of the ranks; False if it had to give way itself."""
        while not self.kv.extend(request.request_id, num_tokens):
            victim = next(one for one in self._running.backwards() if not self._waiting.is_pinned(one))
            self._preempt(draft, victim)
            if victim is request:
                return False
        return True

    def _plan_waiting(self, draft: Draft, before: Request | None = None) -> None:
        """Start those that wait, in order; with ``before``, only those that rank before that running request."""
        while draft.budget > 0 and not draft.blocked:
            request = self._waiting.first(draft.now)
            if request is None:
                return
            if (
                before is not None
                and not self._waiting.is_pinned(request)
                and not self._ranks_before(request, before, draft)
            ):
                return
            # Nobody overtakes what was preempted in this step, and starting that again at once would only thrash.
            draft.blocked = request.request_id in draft.preempted or not self._start(draft, request)

    def _start(self, draft: Draft, request: Request) -> bool:
        """Move the head of the queue to the running ones. It gets blocks for all its known tokens now, so that a prefill
        in chunks is never caught half-way by a later start; a pinned one gets all that it can ever need."""
        num_tokens = len(request.token_ids)
        if self._waiting.is_pinned(request):
            num_tokens = request.num_prompt_tokens + request.max_tokens
        if len(self._running) >= self.max_num_running and not self._displace(draft, request, num_blocks=0):
            return False
        matched = self.kv.match(request)
        while not self.kv.can_start(num_tokens, matched):
            if not self._displace(draft, request, self.kv.missing_blocks(num_tokens, matched)):
                return False
            matched = self.kv.match(request)
        self._waiting.remove(request, draft.now)
        self.kv.start(request, num_tokens, matched)
        num_cached = len(matched) * self.kv.block_size
        request.num_computed_tokens = num_cached
        if request.first_scheduled_s is None:
            request.first_scheduled_s = draft.now
            request.num_cached_tokens = num_cached
            self._totals.total_prompt_tokens += request.num_prompt_tokens
            self._totals.total_prefix_query_tokens += request.num_prompt_tokens
            self._totals.total_prefix_hit_tokens += num_cached
        self.policy.started(request, draft.now)
        self._running.add(request, draft.now)
        num_tokens = min(len(request.token_ids) - num_cached, draft.budget)
        draft.put(request, num_tokens, self.kv.block_table(request.request_id))
        return True

    def _displace(self, draft: Draft, waiting: Request, num_blocks: int) -> bool:
        """Preempt the last-ranked running request for a waiting one, if the policy allows it and if all that it allows
        would free ``num_blocks`` (else the sacrifice would be for nothing)."""
        policy, now, allowed = self.policy, draft.now, 0
        victim: Request | None = None
        for running in self._running.backwards(behind=policy.rank(waiting, now)):
            if self._waiting.is_pinned(running) or not policy.may_preempt(waiting, running, now):
                continue
            victim = victim or running
            allowed += len(self.kv.block_table(running.request_id))
            if allowed >= num_blocks:
                self._preempt(draft, victim)
                return True
        return False

    def _ranks_before(self, waiting: Request, running: Request, draft: Draft) -> bool:
        rank = self.policy.rank
        return bool(rank(waiting, draft.now) < rank(running, draft.now))

    def _preempt(self, draft: Draft, victim: Request) -> None:
        """Back to the queue, at the place of its rank; its blocks are freed (full ones stay in the prefix cache)."""
        planned = draft.planned.pop(victim.request_id, None)
        if planned is not None:
            draft.budget += planned.num_tokens
        self._running.remove(victim)
        self.kv.release(victim.request_id)
        victim.num_computed_tokens = 0
        victim.num_preemptions += 1
        self._totals.total_preemptions += 1
        draft.preempted.append(victim.request_id)
        self._waiting.add(victim, draft.now)

    # -- commit --------------------------------------------------------------------------------------------------------

    def commit(self, plan: Plan, result: StepResult, now: float) -> list[TokenEvent]:
        """Record a finished step: advance, offer full blocks to others, detect the end. Returns what clients must hear."""
        block_size, present, sampled = self.kv.block_size, self._requests, result.samples
        committed = self.policy.committed
        self.policy.forecast.step_time.observe(load_of(plan), result.step_time_s)
        events = []
        for request, start, num_tokens, _, samples in plan.requests:
            request_id = request.request_id
            if present.get(request_id) is not request:
                continue  # aborted while the step ran
            sample = sampled.get(request_id)
            if sample is not None and sample.error is not None:  # even a chunk can fail: nothing of it may be kept
                events.append(self._fail(request, sample.error, now))
                continue
            request.num_computed_tokens = computed = start + num_tokens
            if computed % block_size < num_tokens:  # a block became full
                self.kv.commit(request)
            committed(request, num_tokens, len(sample.token_ids) if sample is not None else 0, now)
            if samples:
                events.append(self._advance(request, sampled[request_id], now))
        self._totals.total_draft_tokens += result.num_draft_tokens
        self._totals.total_accepted_tokens += result.num_accepted_tokens
        return events

    def _advance(self, request: Request, sample: Sample, now: float) -> TokenEvent:
        accepted, reason, stop = accept(request, sample.token_ids)
        request.token_ids += accepted
        request.last_token_s = now
        event = TokenEvent(
            request_id=request.request_id,
            token_ids=accepted,
            time_s=now,
            num_cached_tokens=request.num_cached_tokens,
        )
        if sample.logprobs is not None:
            event = msgspec.structs.replace(event, logprobs=sample.logprobs[: len(accepted)])
        if request.first_token_s is None:
            request.first_token_s = now
            event = msgspec.structs.replace(event, timings=timings(request, now))
        if reason is None:
            if sample.num_computed:
                self._keep_computed(request, sample.num_computed)
            return event
        return self._end(request, msgspec.structs.replace(event, finish_reason=reason, stop_reason=stop), now)

    def _keep_computed(self, request: Request, num_tokens: int) -> None:
        """Speculation has written the keys and values of new tokens already; the last of them always remains to be done."""
        before = request.num_computed_tokens
        request.num_computed_tokens = min(before + num_tokens, len(request.token_ids) - 1)
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
        assert all(one.num_preemptions <= self.max_preemptions for one in self._requests.values())
        self._waiting.check(now)
        assert not any(self.kv.holds(request_id) for request_id in waiting), "a waiting request holds blocks"
        for request in self._running:
            table = self.kv.block_table(request.request_id)
            name, num_computed = request.request_id, request.num_computed_tokens
            assert num_computed < len(request.token_ids), f"{name} has nothing left to compute"
            assert len(table) * self.kv.block_size >= num_computed, f"{name} outgrew its table"
        numbers = self.kv.check()
        assert bool(numbers["held"]) == bool(self._running), f"blocks held by nobody, or running without: {numbers}"
