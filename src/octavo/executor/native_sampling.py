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
from octavo.executor.sampling.uniform import uniforms
from octavo.kernels.native.structs import SAMPLING_ROW
from octavo.types import Request, Sample

if TYPE_CHECKING:
    from octavo.executor.sampling.sampler import Sampler

NO_TOP_K = 2**31 - 1


class NativeSampler:
    """Chooses the next token of each row of a step."""

    def __init__(self, step: NativeStep, vocab_size: int) -> None:
        self._step, self._vocab_size = step, vocab_size
        self._torch: Sampler | None = None

    def sample(self, result: StepLogits, requests: Sequence[Request]) -> dict[str, Sample]:
        """Row ``i`` of ``result`` decides the next token of ``requests[i]``. Rows that are not sound fail alone."""
        peaks = result.logits[np.arange(len(result.tokens)), result.tokens]
        native = [is_unedited(request) for request in requests]
        drawn = [
            row for row, request in enumerate(requests) if native[row] and request.params.temperature >= GREEDY_BELOW
        ]
        tokens = np.where(np.isfinite(peaks), result.tokens, -1)
        if drawn:
            tokens[drawn] = self._step.draw(_rows(drawn, [requests[row] for row in drawn]))
        samples = {
            request.request_id: Sample((token,))
            for request, token, is_native in zip(requests, tokens.tolist(), native, strict=True)
            if is_native and token >= 0
        }
        rest = [row for row, request in enumerate(requests) if request.request_id not in samples]
        return samples | self._with_torch(result, rest, requests) if rest else samples

    def _with_torch(self, result: StepLogits, rows: list[int], requests: Sequence[Request]) -> dict[str, Sample]:
        """Also for rows without a sound token: its messages say what is wrong with them."""
        import torch

        if self._torch is None:
            from octavo.executor.sampling.sampler import Sampler

            self._torch = Sampler()
        logits = torch.from_numpy(result.logits[rows, : self._vocab_size])
        with torch.inference_mode():
            return self._torch.sample(logits, [requests[row] for row in rows])


def _rows(rows: list[int], requests: Sequence[Request]) -> NDArray[np.void]:
    made = np.empty(len(rows), SAMPLING_ROW)
    made["row"] = rows
    made["uniform"] = uniforms(requests)
    made["temperature"] = [request.params.temperature for request in requests]
    made["top_p"] = [request.params.top_p for request in requests]
    made["min_p"] = [request.params.min_p for request in requests]
    made["top_k"] = [k if 0 < (k := request.params.top_k) < NO_TOP_K else NO_TOP_K for request in requests]
    return made
