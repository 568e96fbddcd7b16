"""An executor that computes nothing: it lets a virtual clock run on by what the step would take."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from octavo.scheduler.step_time import load_of
from octavo.simulator.machine import Machine
from octavo.types import Plan, Sample, StepResult

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
    sees every step: the plan and how long it takes."""

    def __init__(
        self,
        machine: Machine,
        clock: VirtualClock,
        ends_after: Mapping[str, int],
        *,
        seed: int = 0,
        watch: Callable[[Plan, float], None] | None = None,
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._ends_after = ends_after
        self._rng = random.Random(seed)  # noqa: S311 - noise of a simulation
        self._watch = watch

    def run(self, plan: Plan) -> StepResult:
        seconds = self._machine.seconds(load_of(plan)) * self._machine.noise_factor(self._rng)
        if self._watch is not None:
            self._watch(plan, seconds)
        self._clock.now_s += seconds
        ends_after = self._ends_after
        samples = {
            request.request_id: _END if start + num_tokens >= ends_after[request.request_id] else _GO_ON
            for request, start, num_tokens, _, samples in plan.requests
            if samples
        }
        return StepResult(samples, seconds)

    def close(self) -> None:
        """Nothing is held."""
