"""Executor on the native CPU kernels, with draft verification."""

from __future__ import annotations

import time
from collections.abc import Sequence

from octavo.executor.flat import flatten
from octavo.executor.isolation import run_isolated
from octavo.executor.native_sampling import NativeSampler
from octavo.executor.native_step import NativeStep
from octavo.executor.prompt_lookup import MAX_ROWS, PromptLookup
from octavo.executor.requests import FinishedStep, RequestState, RequestStates, Row
from octavo.types import DraftLimits, Plan, Sample, SamplingParams, Step, StepResult


class NativeExecutor:
    """A request's tokens depend on the request alone, bit for bit, whatever else is in the plan and whatever is drafted.

    ``num_draft_tokens``: how many tokens prompt lookup may propose for a request in a step; 0: none.
    """

    max_in_flight = 1

    def __init__(self, step: NativeStep, block_size: int, num_draft_tokens: int = 0) -> None:
        self._native_step, self._block_size = step, block_size
        self._sampler = NativeSampler(step, step.vocab_size)
        self._states = RequestStates()
        self._lookup = PromptLookup() if num_draft_tokens else None
        self.draft_limits = DraftLimits(num_draft_tokens, MAX_ROWS)

    def launch(self, plan: Plan) -> Step:
        """Computes the step at once."""
        started_s = time.perf_counter()
        samples = run_isolated(self._step, self._states.rows(plan))
        self._states.sampled(samples)
        elapsed_s = time.perf_counter() - started_s
        if self._lookup is None:
            return FinishedStep(StepResult(samples, elapsed_s))
        num_accepted = sum(sample.num_computed for sample in samples.values())
        return FinishedStep(StepResult(samples, elapsed_s, self._lookup.num_drafted, num_accepted))

    def warm_up(self) -> None:
        """Read every weight once. Overwrites block 0: call before serving."""
        request = RequestState("warm-up", [0, 0], 2, SamplingParams(temperature=0.0), 1, block_ids=[0, 0])
        self._step([Row(request, 0, 2, samples=True)])

    def close(self) -> None:
        """The executor cannot run any more."""
        self._native_step.close()

    def _step(self, requests: Sequence[Row]) -> dict[str, Sample]:
        drafts = self._lookup.drafts(requests) if self._lookup else None
        result = self._native_step.forward(flatten(requests, self._block_size, drafts))
        wanted = [row.request for row in requests if row.samples]
        if not wanted:
            return {}
        if drafts is None:
            return self._sampler.sample(result, wanted)
        return self._sampler.sample(result, wanted, [d for row, d in zip(requests, drafts, strict=True) if row.samples])
