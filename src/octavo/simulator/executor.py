"""Simulated executor: computes nothing, lets a virtual clock run on by what each step would take."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from octavo.scheduler.step_time import load_of
from octavo.simulator.machine import Machine
from octavo.types import DraftLimits, Plan, Sample, Step, StepResult

END_TOKEN, TOKEN = 0, 1
_END, _GO_ON = Sample((END_TOKEN,)), Sample((TOKEN,))


class VirtualClock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s


class SimExecutor:
    """``ends_after``: how many tokens of each request, prompt and output, are computed when its end token comes. ``watch``
    sees every step: the plan and how long it takes. ``max_in_flight`` above 1: a step begins when the one before it is done,
    and the clock moves when a result is waited for."""

    draft_limits = DraftLimits()

    def __init__(
        self,
        machine: Machine,
        clock: VirtualClock,
        ends_after: Mapping[str, int],
        *,
        seed: int = 0,
        watch: Callable[[Plan, float], None] | None = None,
        max_in_flight: int = 1,
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._ends_after = ends_after
        self._rng = random.Random(seed)  # noqa: S311 - noise of a simulation
        self._watch = watch
        self.max_in_flight = max_in_flight
        self._free_at_s = 0.0

    def launch(self, plan: Plan) -> Step:
        seconds = self._machine.seconds(load_of(plan)) * self._machine.noise_factor(self._rng)
        if self._watch is not None:
            self._watch(plan, seconds)
        self._free_at_s = max(self._clock.now_s, self._free_at_s) + seconds
        ends_after = self._ends_after
        samples = {
            request_id: _END if start + num_tokens >= ends_after[request_id] else _GO_ON
            for request_id, start, num_tokens, samples, _, _, _ in plan.requests
            if samples
        }
        return SimStep(StepResult(samples, seconds), self._free_at_s, self._clock)

    def close(self) -> None:
        """Nothing is held."""


class SimStep(NamedTuple):
    """Waiting for it lets the virtual clock run on to ``done_s``."""

    outcome: StepResult
    done_s: float
    clock: VirtualClock

    def result(self) -> StepResult:
        self.clock.now_s = max(self.clock.now_s, self.done_s)
        return self.outcome
