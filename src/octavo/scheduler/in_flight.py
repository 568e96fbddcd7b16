"""Steps in flight: planned, launched and not committed yet, oldest first, with the forecast of when each ends."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from octavo.scheduler.step_time import StepLoad, StepTimeForecast, load_of
from octavo.types import Plan, Request


class StepInFlight(NamedTuple):
    """``requests[i]`` is the live request of ``plan.requests[i]``: a plan names it only, and names are used again."""

    plan: Plan
    requests: list[Request]
    load: StepLoad
    forecast_s: float  # duration; 0 while nothing is known


class StepsInFlight:
    """Filled by ``plan``, emptied by ``commit``, in the same order."""

    def __init__(self, step_time: StepTimeForecast) -> None:
        self._step_time = step_time
        self._steps: deque[StepInFlight] = deque()
        self._began_s = 0.0  # when the oldest one began

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def newest(self) -> int | None:
        """Number of the step that will end last."""
        return self._steps[-1].plan.step if self._steps else None

    def start_s(self, now: float) -> float:
        """When a step that is planned now will begin: when those before it are done."""
        return max(now, self._began_s + sum(step.forecast_s for step in self._steps)) if self._steps else now

    def add(self, plan: Plan, requests: list[Request], now: float) -> None:
        """``plan`` is about to be launched."""
        load = load_of(plan)
        forecast_s = self._step_time.seconds(load) if self._step_time.ready else 0.0
        if not self._steps:
            self._began_s = now
        self._steps.append(StepInFlight(plan, requests, load, forecast_s))

    def take(self, plan: Plan, now: float) -> StepInFlight:
        """The oldest one, which must be ``plan``'s: it is done, and the next one begins."""
        step = self._steps.popleft()
        assert step.plan is plan, f"step {plan.step} committed before step {step.plan.step}"
        self._began_s = now
        return step
