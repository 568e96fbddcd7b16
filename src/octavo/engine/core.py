"""The loop: plan, run, commit. Synchronous, in whichever process holds it; who calls ``step`` is the caller's business."""

from __future__ import annotations

import time
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
        """Queue it. Raises ``InvalidRequestError`` (see ``admission``; also an id in use) or ``ContextLengthError``."""
        self._scheduler.add(complete(submission, self.info, self._defaults), self._clock.now())

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
