"""Plan -> tokens by the native kernels."""

from __future__ import annotations

import time
from collections.abc import Sequence

from octavo.executor.flat import flatten
from octavo.executor.isolation import run_isolated
from octavo.executor.native_sampling import NativeSampler
from octavo.executor.native_step import NativeStep
from octavo.types import Plan, PlannedRequest, Request, Sample, SamplingParams, StepResult


class NativeExecutor:
    """A request's tokens depend on the request alone, bit for bit, whatever else is in the plan."""

    def __init__(self, step: NativeStep, block_size: int, vocab_size: int) -> None:
        self._native_step, self._block_size = step, block_size
        self._sampler = NativeSampler(step, vocab_size)

    def run(self, plan: Plan) -> StepResult:
        started_s = time.perf_counter()
        samples = run_isolated(self._step, plan.requests) if plan.requests else {}
        return StepResult(samples, time.perf_counter() - started_s)

    def warm_up(self) -> None:
        """Read every weight once. Overwrites block 0: call before serving."""
        request = Request("warm-up", [0, 0], 2, SamplingParams(temperature=0.0), 1, frozenset(), 0.0)
        self._step([PlannedRequest(request, 0, 2, [0], samples=True)])

    def close(self) -> None:
        """The executor cannot run any more."""
        self._native_step.close()

    def _step(self, requests: Sequence[PlannedRequest]) -> dict[str, Sample]:
        result = self._native_step.forward(flatten(requests, self._block_size))
        wanted = [planned.request for planned in requests if planned.samples]
        return self._sampler.sample(result, wanted) if wanted else {}
