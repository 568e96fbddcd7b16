"""The engine loop: plan, launch, commit.

Steps in flight: up to the executor's ``max_in_flight`` are launched before the oldest is committed. An executor that computes a
step within ``launch`` has one; a GPU has two, so that it goes on with the next step while this one is committed.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from octavo.engine.submission import RequestDefaults, complete
from octavo.errors import EngineError
from octavo.scheduler.scheduler import Scheduler
from octavo.types import (
    Clock,
    EngineInfo,
    EngineStats,
    Executor,
    Plan,
    Step,
    StepResult,
    Submission,
    TokenEvent,
)

NO_PLAN = Plan(0, ())


class MonotonicClock:
    """``time.monotonic()``: the same in every process of this machine."""

    def now(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did: events in order, at most one terminal one per request, and the engine's figures after it."""

    events: list[TokenEvent]
    stats: EngineStats


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
        self._in_flight: deque[tuple[Plan, Step]] = deque()  # launched, not committed; oldest first
        self._ended: list[TokenEvent] = []  # ends between steps (aborts), reported by the next one

    @property
    def has_work(self) -> bool:
        """``step`` has something to do or to report."""
        return self._scheduler.has_work or bool(self._in_flight) or bool(self._ended)

    def submit(self, submission: Submission) -> None:
        """Queue it. Raises ``InvalidRequestError`` (see ``admission``; also an id in use) or ``ContextLengthError``."""
        self._scheduler.add(complete(submission, self.info, self._defaults), self._clock.now())

    def abort(self, request_id: str) -> None:
        """End it now, wherever it is; its blocks are free when this returns, or when the steps in flight are done. Unknown or
        ended ids are no error."""
        event = self._scheduler.abort(request_id, self._clock.now())
        if event is not None:
            self._ended.append(event)

    def step(self) -> StepReport:
        """One turn of the loop. An executor that raises is fatal: the caller ends every request (see ``fail_all``)."""
        plan = self._scheduler.plan(self._clock.now())
        if plan.requests:
            self._in_flight.append((plan, self._executor.launch(plan)))
        done, result, events = NO_PLAN, StepResult(), []
        if len(self._in_flight) >= (self._executor.max_in_flight if plan.requests else 1):
            done, step = self._in_flight.popleft()
            result = step.result()
            events = self._scheduler.commit(done, result, self._clock.now())
        elif not plan.requests and self._scheduler.has_work:
            raise EngineError("the scheduler planned nothing although requests wait; this is a bug")
        ended, self._ended = self._ended, []
        return StepReport(ended + events, self._scheduler.stats(done, result))

    def fail_all(self, message: str) -> list[TokenEvent]:
        """One terminal error for every request in flight: for a caller that gives the engine up."""
        ended, self._ended = self._ended, []
        self._in_flight.clear()
        return ended + self._scheduler.abort_all(self._clock.now(), error=message)

    def close(self) -> None:
        self._executor.close()
