"""Executor without a model: seeded tokens, steps of a fixed duration, on its own clock if asked to."""

from __future__ import annotations

import struct
import time
import zlib
from typing import NamedTuple

from octavo.executor.requests import FinishedStep, RequestState, RequestStates, Row
from octavo.types import DraftLimits, Plan, Sample, Step, StepResult, TokenLogprobs


class FakeExecutor:
    """Each token is a seeded function of the request's last tokens, its length and, unless greedy, its seed.

    So a request gets the same tokens in any batch, chunked or not, preempted or not. A broken plan raises ``ValueError``.
    ``max_in_flight`` above 1: steps take their time elsewhere, as on a GPU, one after the other without a pause as long as
    the next is launched before the last is done; ``idle_s`` adds up the pauses.
    """

    draft_limits = DraftLimits()

    def __init__(
        self, vocab_size: int, step_time_s: float = 0.0, seed: int = 0, block_size: int = 0, max_in_flight: int = 1
    ) -> None:
        self.vocab_size, self.step_time_s, self.seed, self.block_size = vocab_size, step_time_s, seed, block_size
        self.max_in_flight = max_in_flight
        self.idle_s = 0.0
        self._free_at_s = 0.0  # when the last launched step is done
        self._states = RequestStates()

    def launch(self, plan: Plan) -> Step:
        """With one step in flight it is done on return, ``step_time_s`` later. Raises ``ValueError``: a broken plan."""
        started_s = time.perf_counter()
        rows = self._states.rows(plan)
        if plan.num_tokens != sum(self._check(row) for row in rows):
            raise ValueError(f"plan.num_tokens is {plan.num_tokens}, its requests do not add up to that")
        samples = {row.request.request_id: self._sample(row.request) for row in rows if row.samples}
        self._states.sampled(samples)
        if self.max_in_flight == 1:
            if self.step_time_s:
                time.sleep(self.step_time_s)
            return FinishedStep(StepResult(samples, time.perf_counter() - started_s))
        launched_s = time.perf_counter()
        if self._free_at_s:
            self.idle_s += max(0.0, launched_s - self._free_at_s)
        self._free_at_s = max(launched_s, self._free_at_s) + self.step_time_s
        return StepElsewhere(StepResult(samples, self.step_time_s), self._free_at_s)

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, row: Row) -> int:
        request, start, num_tokens, samples, _ = row
        end, known, room = start + num_tokens, len(request.token_ids), len(request.block_ids) * self.block_size
        if not 0 <= start < end <= known or samples != (end == known) or (self.block_size and room < end):
            raise ValueError(f"bad plan for {request.request_id}: tokens {start}..{end} of {known}, room for {room}")
        return num_tokens

    def _sample(self, request: RequestState) -> Sample:
        params, tail = request.params, request.token_ids[-8:]
        seed = (params.seed or 0) % 2**64 if params.temperature > 0 else 0
        first = zlib.crc32(struct.pack(f"<3Q{len(tail)}q", self.seed, seed, len(request.token_ids), *tail))
        candidates = ((first + i) % self.vocab_size for i in range(self.vocab_size))
        banned = request.stop_ids if request.num_output_tokens < params.min_tokens else ()
        token = next((c for c in candidates if c not in banned), first % self.vocab_size)
        if params.logprobs is None:
            return Sample((token,))
        top = tuple(((token + i) % self.vocab_size, -0.5 * (i + 1)) for i in range(params.logprobs))
        return Sample((token,), (TokenLogprobs(token, -0.5, top),))


class StepElsewhere(NamedTuple):
    """``Step`` that is done at ``done_s`` of ``time.perf_counter``, whatever this thread does until then."""

    outcome: StepResult
    done_s: float

    def result(self) -> StepResult:
        """Sleeps until the step is done."""
        left_s = self.done_s - time.perf_counter()
        if left_s > 0.0:
            time.sleep(left_s)
        return self.outcome
