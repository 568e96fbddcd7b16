"""The loop: plan, run, commit. Synchronous, in whichever process holds it; who calls ``step`` is the caller's business."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import msgspec

from octavo.errors import EngineError, InvalidRequestError
from octavo.kvcache.fit import check_fits
from octavo.scheduler.scheduler import Scheduler
from octavo.types import (
    Clock,
    EngineInfo,
    EngineStats,
    Executor,
    Plan,
    Request,
    StepResult,
    Submission,
    TokenEvent,
)


class MonotonicClock:
    """``time.monotonic()``: the same in every process of this machine."""

    def now(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did: events in order, at most one terminal one per request, and the books after it."""

    events: list[TokenEvent]
    stats: EngineStats


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What a request is completed with."""

    eos_token_ids: frozenset[int] = frozenset()  # end a sequence unless ignore_eos
    seed: int = 0  # from which requests without a seed get theirs


class Engine:
    """One scheduler, one executor, one clock. Not thread-safe: one thread submits, aborts and steps."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        info: EngineInfo,
        defaults: RequestDefaults,
        clock: Clock | None = None,
    ) -> None:
        self.info = info
        self._scheduler = scheduler
        self._executor = executor
        self._defaults = defaults
        self._clock = clock or MonotonicClock()
        self._ended: list[TokenEvent] = []  # ends between steps (aborts), reported by the next one

    @property
    def has_work(self) -> bool:
        """``step`` has something to do or to report."""
        return self._scheduler.has_work or bool(self._ended)

    def submit(self, submission: Submission) -> None:
        """Queue it. Raises ``InvalidRequestError`` (empty prompt, unknown token ids, id in use) or ``ContextLengthError``."""
        self._scheduler.add(self._complete(submission), self._clock.now())

    def abort(self, request_id: str) -> None:
        """End it now, wherever it is; its blocks are free when this returns. Unknown or ended ids are no error."""
        event = self._scheduler.abort(request_id, self._clock.now())
        if event is not None:
            self._ended.append(event)

    def step(self) -> StepReport:
        """One turn of the loop. An executor that raises is fatal: the caller ends every request (see ``fail_all``)."""
        plan = self._scheduler.plan(self._clock.now())
        result = self._run(plan)
        events = self._scheduler.commit(plan, result, self._clock.now())
        ended, self._ended = self._ended, []
        return StepReport(ended + events, self._scheduler.stats(plan, result))

    def fail_all(self, message: str) -> list[TokenEvent]:
        """One terminal error for every request in flight: for a caller that gives the engine up."""
        ended, self._ended = self._ended, []
        return ended + self._scheduler.abort_all(self._clock.now(), error=message)

    def close(self) -> None:
        self._executor.close()

    def _run(self, plan: Plan) -> StepResult:
        if plan.requests:
            return self._executor.run(plan)
        if self._scheduler.has_work:
            raise EngineError("the scheduler planned nothing although requests are in flight; this is a bug")
        return StepResult()

    def _complete(self, submission: Submission) -> Request:
        """The checked request with everything resolved that the client left open."""
        prompt, params = submission.prompt_token_ids, submission.params
        if not prompt:
            raise InvalidRequestError("the prompt has no tokens; send at least one", param="prompt")
        for token_id in (min(prompt), max(prompt)):
            if not 0 <= token_id < self.info.vocab_size:
                raise InvalidRequestError(
                    f"prompt token id {token_id} is outside the vocabulary 0..{self.info.vocab_size - 1}",
                    param="prompt",
                )
        room = self.info.max_request_tokens - len(prompt)
        max_tokens = params.max_tokens if params.max_tokens is not None else max(1, room)
        check_fits(len(prompt), max_tokens, self.info)
        if params.seed is None:
            params = msgspec.structs.replace(params, seed=_derived_seed(self._defaults.seed, submission.request_id))
        stop_ids = frozenset(params.stop_token_ids) | (
            frozenset() if params.ignore_eos else self._defaults.eos_token_ids
        )
        return Request(
            request_id=submission.request_id,
            token_ids=list(prompt),
            num_prompt_tokens=len(prompt),
            params=params,
            max_tokens=max_tokens,
            stop_ids=stop_ids,
            arrival_s=submission.arrival_s,
            priority=submission.priority,
            tenant=submission.tenant,
        )


def _derived_seed(seed: int, request_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{request_id}".encode()).digest()[:7], "big")
