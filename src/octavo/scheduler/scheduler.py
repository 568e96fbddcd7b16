"""WHO runs next and how many tokens each: continuous batching with chunked prefill under a token budget.

``plan`` decides, ``commit`` records what the executor did. Both are pure bookkeeping: no torch, no clock, no I/O. Every
request that ``add`` accepts ends in exactly one terminal event.

Why this always makes progress: a request is preempted only for one that ranks before it, so the first-ranked running
request is never preempted; ``check_fits`` made sure that the cache can hold it alone; so it gets its blocks, runs and ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from octavo.errors import ConfigError, InvalidRequestError
from octavo.kvcache.cache import KVCache
from octavo.scheduler.policy import Policy
from octavo.scheduler.queue import RankedRequests
from octavo.types import (
    EngineStats,
    FinishReason,
    Plan,
    PlannedRequest,
    Request,
    RequestTimings,
    Sample,
    StepResult,
    TokenEvent,
)


@dataclass(slots=True)
class _Draft:
    """A plan in the making: who is in, how much of the budget is left."""

    now: float
    budget: int
    planned: dict[str, PlannedRequest]
    preempted: list[str]


class Scheduler:
    """Owns every request from ``add`` to its terminal event."""

    def __init__(self, policy: Policy, kv: KVCache, *, max_num_running: int, max_step_tokens: int) -> None:
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
        self._requests: dict[str, Request] = {}
        self._running = RankedRequests(policy)
        self._waiting = RankedRequests(policy)
        self._num_added = 0
        self._total_steps = 0
        self._total_preemptions = 0
        self._total_prompt_tokens = 0
        self._total_prefix_query_tokens = 0
        self._total_prefix_hit_tokens = 0
        self._total_draft_tokens = 0
        self._total_accepted_tokens = 0

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
        """Queue a request that fits (see ``kvcache.fit``). Raises ``InvalidRequestError`` if its id is in use."""
        if request.request_id in self._requests:
            raise InvalidRequestError(f"request id {request.request_id!r} is in use", param="request_id")
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
        self._total_steps += 1
        self._waiting.refresh(now)
        self._running.refresh(now)
        decodes: list[Request] = []
        prefills: list[Request] = []
        for request in self._running:
            is_decode = len(request.token_ids) - request.num_computed_tokens == 1
            (decodes if is_decode else prefills).append(request)
        budget = self.policy.token_budget([*decodes, *prefills], self.max_step_tokens, now)
        draft = _Draft(now, budget, {}, [])
        self._plan_running(draft, decodes)
        self._plan_running(draft, prefills)
        self._plan_waiting(draft)
        return Plan(
            step=self._total_steps,
            requests=tuple(sorted(draft.planned.values(), key=_is_prefill)),
            num_tokens=budget - draft.budget,
            preempted=tuple(draft.preempted),
        )

    def _plan_running(self, draft: _Draft, requests: Iterable[Request]) -> None:
        table_of, block_size = self.kv.block_table, self.kv.block_size
        for request in requests:
            if draft.budget <= 0:
                return
            request_id, start = request.request_id, request.num_computed_tokens
            if request_id in draft.preempted:
                continue  # gave way to one before it
            num_tokens = min(len(request.token_ids) - start, draft.budget)
            has_room = start + num_tokens <= len(table_of(request_id)) * block_size  # mostly: no need to ask for more
            if has_room or self._make_room(draft, request, start + num_tokens):
                self._put(draft, request, num_tokens)

    def _make_room(self, draft: _Draft, request: Request, num_tokens: int) -> bool:
        """Extend the request's table, preempting from the back of the ranks; False if it had to give way itself."""
        while not self.kv.extend(request.request_id, num_tokens):
            victim = self._running.last()
            self._preempt(draft, victim)
            if victim is request:
                return False
        return True

    def _plan_waiting(self, draft: _Draft) -> None:
        while draft.budget > 0:
            request = self._waiting.first()
            # Nobody overtakes what was preempted in this step, and starting that again at once would only thrash.
            if request is None or request.request_id in draft.preempted:
                return
            if not self._start(draft, request):
                return

    def _start(self, draft: _Draft, request: Request) -> bool:
        """Move the head of the queue to the running ones. It gets blocks for all its known tokens now, so that a prefill
        in chunks is never caught half-way by a later start."""
        if len(self._running) >= self.max_num_running and not self._displace(draft, request, num_blocks=0):
            return False
        matched = self.kv.match(request)
        while not self.kv.can_start(len(request.token_ids), matched):
            if not self._displace(draft, request, self.kv.missing_blocks(len(request.token_ids), matched)):
                return False
            matched = self.kv.match(request)
        self._waiting.remove(request, draft.now)
        self.kv.start(request, len(request.token_ids), matched)
        num_cached = len(matched) * self.kv.block_size
        request.num_computed_tokens = num_cached
        if request.first_scheduled_s is None:
            request.first_scheduled_s = draft.now
            request.num_cached_tokens = num_cached
            self._total_prompt_tokens += request.num_prompt_tokens
            self._total_prefix_query_tokens += request.num_prompt_tokens
            self._total_prefix_hit_tokens += num_cached
        self._running.add(request, draft.now)
        self._put(draft, request, min(len(request.token_ids) - num_cached, draft.budget))
        return True

    def _displace(self, draft: _Draft, waiting: Request, num_blocks: int) -> bool:
        """Preempt the last-ranked running request for a waiting one, if the policy allows it and if all that it allows
        would free ``num_blocks`` (else the sacrifice would be for nothing)."""
        rank = self.policy.rank(waiting, draft.now)
        victims = [
            running
            for running in self._running
            if rank < self.policy.rank(running, draft.now) and self.policy.may_preempt(waiting, running, draft.now)
        ]
        if not victims or sum(len(self.kv.block_table(victim.request_id)) for victim in victims) < num_blocks:
            return False
        self._preempt(draft, max(victims, key=lambda victim: self.policy.rank(victim, draft.now)))
        return True

    def _preempt(self, draft: _Draft, victim: Request) -> None:
        """Back to the queue, at the place of its rank; its blocks are freed (full ones stay in the prefix cache)."""
        planned = draft.planned.pop(victim.request_id, None)
        if planned is not None:
            draft.budget += planned.num_tokens
        self._running.remove(victim, draft.now)
        self.kv.release(victim.request_id)
        victim.num_computed_tokens = 0
        victim.num_preemptions += 1
        self._total_preemptions += 1
        draft.preempted.append(victim.request_id)
        self._waiting.add(victim, draft.now)

    def _put(self, draft: _Draft, request: Request, num_tokens: int) -> None:
        request_id, start = request.request_id, request.num_computed_tokens
        draft.budget -= num_tokens
        samples = start + num_tokens == len(request.token_ids)
        draft.planned[request_id] = PlannedRequest(request, start, num_tokens, self.kv.block_table(request_id), samples)

    # -- commit --------------------------------------------------------------------------------------------------------

    def commit(self, plan: Plan, result: StepResult, now: float) -> list[TokenEvent]:
        """Record a finished step: advance, offer full blocks to others, detect the end. Returns what clients must hear."""
        block_size = self.kv.block_size
        events = []
        for request, start, num_tokens, _, samples in plan.requests:
            if self._requests.get(request.request_id) is not request:
                continue  # aborted while the step ran
            sample = result.samples.get(request.request_id)
            if sample is not None and sample.error is not None:  # even a chunk can fail: nothing of it may be kept
                events.append(self._fail(request, sample.error, now))
                continue
            request.num_computed_tokens = start + num_tokens
            if request.num_computed_tokens // block_size > start // block_size:  # a block became full
                self.kv.commit(request)
            self.policy.committed(request, num_tokens, now)
            if samples:
                events.append(self._advance(request, result.samples[request.request_id], now))
        self._total_draft_tokens += result.num_draft_tokens
        self._total_accepted_tokens += result.num_accepted_tokens
        return events

    def _advance(self, request: Request, sample: Sample, now: float) -> TokenEvent:
        accepted, reason, stop = _accept(request, sample.token_ids)
        request.token_ids.extend(accepted)
        is_first, request.last_token_s = request.first_token_s is None, now
        if is_first:
            request.first_token_s = now
        event = TokenEvent(
            request_id=request.request_id,
            token_ids=accepted,
            logprobs=None if sample.logprobs is None else sample.logprobs[: len(accepted)],
            time_s=now,
            num_cached_tokens=request.num_cached_tokens,
            timings=_timings(request, now) if is_first else None,
        )
        if reason is None:
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
        (self._running if self.kv.holds(request.request_id) else self._waiting).remove(request, now)
        self.kv.release(request.request_id)
        timings = _timings(request, event.time_s)
        return msgspec.structs.replace(event, num_cached_tokens=request.num_cached_tokens, timings=timings)

    # -- facts ---------------------------------------------------------------------------------------------------------

    def stats(self, plan: Plan, result: StepResult) -> EngineStats:
        return EngineStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            num_blocks=self.kv.num_blocks,
            num_blocks_used=self.kv.num_used_blocks,
            total_steps=self._total_steps,
            total_preemptions=self._total_preemptions,
            total_prompt_tokens=self._total_prompt_tokens,
            total_prefix_query_tokens=self._total_prefix_query_tokens,
            total_prefix_hit_tokens=self._total_prefix_hit_tokens,
            total_draft_tokens=self._total_draft_tokens,
            total_accepted_tokens=self._total_accepted_tokens,
            step_time_s=result.step_time_s,
            step_num_tokens=plan.num_tokens,
            step_num_requests=len(plan.requests),
        )

    def check(self) -> None:
        """AssertionError if the books do not balance. For tests, after every step."""
        waiting = {request.request_id for request in self._waiting}
        running = {request.request_id for request in self._running}
        assert len(waiting) + len(running) == len(self._waiting) + len(self._running), "a request waits or runs twice"
        assert not waiting & running, "a request waits and runs"
        assert waiting | running == self._requests.keys(), "a request is lost"
        assert len(running) <= self.max_num_running
        assert not any(self.kv.holds(request_id) for request_id in waiting), "a waiting request holds blocks"
        for request in self._running:
            table = self.kv.block_table(request.request_id)
            assert request.num_computed_tokens < len(request.token_ids), (
                f"{request.request_id} has nothing left to compute"
            )
            assert len(table) * self.kv.block_size >= request.num_computed_tokens, (
                f"{request.request_id} outgrew its table"
            )
        numbers = self.kv.check()
        assert bool(numbers["held"]) == bool(self._running), (
            f"blocks are held by nobody, or running requests hold none: {numbers}"
        )


def _is_prefill(planned: PlannedRequest) -> bool:
    return planned.num_tokens > 1


def _accept(request: Request, token_ids: tuple[int, ...]) -> tuple[tuple[int, ...], FinishReason | None, int | None]:
    """How many of the sampled tokens count, whether the request ends with them, and by which stop token."""
    num_before = len(request.token_ids) - request.num_prompt_tokens
    for count, token_id in enumerate(token_ids, start=1):
        if token_id in request.stop_ids and num_before + count > request.params.min_tokens:
            stop = token_id if token_id in request.params.stop_token_ids else None
            return token_ids[:count], FinishReason.STOP, stop
        if num_before + count >= request.max_tokens:
            return token_ids[:count], FinishReason.LENGTH, None
    return token_ids, None, None


def _timings(request: Request, now: float) -> RequestTimings:
    def since_arrival(time_s: float | None) -> float | None:
        return None if time_s is None else max(0.0, time_s - request.arrival_s)

    tpot_s = None
    if request.first_token_s is not None and request.last_token_s is not None and request.num_output_tokens > 1:
        tpot_s = (request.last_token_s - request.first_token_s) / (request.num_output_tokens - 1)
    return RequestTimings(
        queue_s=since_arrival(request.first_scheduled_s),
        ttft_s=since_arrival(request.first_token_s),
        tpot_s=tpot_s,
        e2e_s=since_arrival(now),
        num_preemptions=request.num_preemptions,
    )
