"""An executor without a model: which token comes next when only everything above the executor is under test?"""

from __future__ import annotations

import struct
import time
import zlib

from octavo.types import Plan, PlannedRequest, Request, Sample, StepResult, TokenLogprobs


class FakeExecutor:
    """Each token is a seeded function of the request's last tokens, its length and, unless greedy, its seed.

    So a request gets the same tokens in any batch, chunked or not, preempted or not. A broken plan raises ``ValueError``.
    """

    def __init__(self, vocab_size: int, step_time_s: float = 0.0, seed: int = 0, block_size: int = 0) -> None:
        self.vocab_size, self.step_time_s, self.seed, self.block_size = vocab_size, step_time_s, seed, block_size

    def run(self, plan: Plan) -> StepResult:
        started_s = time.perf_counter()
        if plan.num_tokens != sum(self._check(planned) for planned in plan.requests):
            raise ValueError(f"plan.num_tokens is {plan.num_tokens}, its requests do not add up to that")
        samples = {p.request.request_id: self._sample(p.request) for p in plan.requests if p.samples}
        if self.step_time_s:
            time.sleep(self.step_time_s)
        return StepResult(samples, time.perf_counter() - started_s)

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, p: PlannedRequest) -> int:
        end, known, room = p.start + p.num_tokens, len(p.request.token_ids), len(p.block_ids) * self.block_size
        if not 0 <= p.start < end <= known or p.samples != (end == known) or (self.block_size and room < end):
            raise ValueError(
                f"bad plan for {p.request.request_id}: tokens {p.start}..{end} of {known}, room for {room}"
            )
        return p.num_tokens

    def _sample(self, request: Request) -> Sample:
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
