"""Tokens from the native step's logits: the largest, or one drawn by the native kernels; torch's sampler for everything else.

Everything else is logit_bias, penalties, min_tokens and log-probabilities. torch is imported when a request first asks for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from octavo.executor.native_step import NativeStep, StepLogits
from octavo.executor.sampling.parameters import GREEDY_BELOW, is_unedited
from octavo.executor.sampling.uniform import request_seed, uniform
from octavo.kernels.native.structs import SAMPLING_ROW
from octavo.types import Request, Sample

if TYPE_CHECKING:
    from octavo.executor.sampling.sampler import Sampler

NO_TOP_K = 2**31 - 1


class NativeSampler:
    """Chooses the next tokens of the requests of a step."""

    def __init__(self, step: NativeStep, vocab_size: int) -> None:
        self._step, self._vocab_size = step, vocab_size
        self._torch: Sampler | None = None

    def sample(
        self, result: StepLogits, requests: Sequence[Request], drafts: Sequence[tuple[int, ...]] | None = None
    ) -> dict[str, Sample]:
        """The first row of ``result`` belongs to ``requests[0]``, then one to each token of its draft, and so on.

        A request whose row is not sound fails alone. The token after a draft's k-th is drawn exactly as it would be k steps
        later, so a draft changes when tokens come and never which.
        """
        drafts = drafts or [()] * len(requests)
        owners = [(request, k) for request, draft in zip(requests, drafts, strict=True) for k in range(len(draft) + 1)]
        tokens = self._tokens(result, owners)
        samples, rest, row = {}, [], 0
        for request, draft in zip(requests, drafts, strict=True):
            if tokens[row] >= 0 and is_unedited(request):
                stands = verified(tokens[row : row + len(draft) + 1], draft)
                samples[request.request_id] = Sample(stands, num_computed=len(stands) - 1)
            else:
                rest.append((row, request))
            row += len(draft) + 1
        return samples | self._with_torch(result, rest) if rest else samples

    def _tokens(self, result: StepLogits, owners: Sequence[tuple[Request, int]]) -> list[int]:
        """The largest of each row, or one that is drawn; -1 where there is none."""
        drawn = [
            row
            for row, (request, _) in enumerate(owners)
            if request.params.temperature >= GREEDY_BELOW and is_unedited(request)
        ]
        tokens: list[int] = result.tokens.tolist()
        if drawn:
            chosen = self._step.draw(_rows(drawn, [owners[row] for row in drawn]))
            for row, token in zip(drawn, chosen.tolist(), strict=True):
                tokens[row] = token
        return tokens

    def _with_torch(self, result: StepLogits, rest: Sequence[tuple[int, Request]]) -> dict[str, Sample]:
        """Also for rows without a sound token: its messages say what is wrong with them."""
        import torch

        if self._torch is None:
            from octavo.executor.sampling.sampler import Sampler

            self._torch = Sampler()
        logits = torch.from_numpy(result.logits[[row for row, _ in rest], : self._vocab_size])
        with torch.inference_mode():
            return self._torch.sample(logits, [request for _, request in rest])


def verified(tokens: Sequence[int], draft: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens that stand: each after the first was computed behind a drafted token, and holds only if that was right."""
    for k, drafted in enumerate(draft):
        if tokens[k] != drafted or tokens[k + 1] < 0:
            return tuple(tokens[: k + 1])
    return tuple(tokens)


def _rows(rows: list[int], owners: Sequence[tuple[Request, int]]) -> NDArray[np.void]:
    made = np.empty(len(rows), SAMPLING_ROW)
    made["row"] = rows
    seeds = np.array([request_seed(request) for request, _ in owners], dtype=np.uint64)
    made["uniform"] = uniform(seeds, np.array([r.num_output_tokens + k for r, k in owners], dtype=np.uint64))
    made["temperature"] = [request.params.temperature for request, _ in owners]
    made["top_p"] = [request.params.top_p for request, _ in owners]
    made["min_p"] = [request.params.min_p for request, _ in owners]
    made["top_k"] = [k if 0 < (k := request.params.top_k) < NO_TOP_K else NO_TOP_K for request, _ in owners]
    return made
