"""Sampling from the native step's logits by native kernels: greedy and random. No torch.

What a request wants changed first (logit_bias, min_tokens, penalties) is changed where the rows lie; its log-probabilities are
those of a copy from before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from octavo.executor.native_step import NativeStep, StepLogits
from octavo.executor.requests import RequestState
from octavo.executor.sampling.edits import edit
from octavo.executor.sampling.history import History
from octavo.executor.sampling.logprobs import token_logprobs
from octavo.executor.sampling.parameters import GREEDY_BELOW, SamplingBatch, is_unedited, unsound
from octavo.executor.sampling.uniform import request_seed, uniform
from octavo.kernels.native.structs import SAMPLING_ROW
from octavo.types import Sample

NO_TOP_K = 2**31 - 1


class NativeSampler:
    """Chooses the next tokens of the requests of a step."""

    def __init__(self, step: NativeStep, vocab_size: int) -> None:
        self._step, self._vocab_size = step, vocab_size
        self._history = History()

    def sample(
        self, result: StepLogits, requests: Sequence[RequestState], drafts: Sequence[tuple[int, ...]] | None = None
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
        return samples | self._edited(result, rest) if rest else samples

    def _tokens(self, result: StepLogits, owners: Sequence[tuple[RequestState, int]]) -> list[int]:
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

    def _edited(self, result: StepLogits, rest: Sequence[tuple[int, RequestState]]) -> dict[str, Sample]:
        """Also for rows without a sound token: its messages say what is wrong with them."""
        rows = [row for row, _ in rest]
        batch = SamplingBatch.from_requests([request for _, request in rest])
        logits = result.logits[rows, : self._vocab_size]  # a copy
        raw = logits[batch.with_logprobs]
        edit(logits, batch, self._history.advance(batch.at(batch.penalised)), lambda array: array)
        greedy = logits.argmax(-1)  # of a row with a NaN: that
        sound = np.isfinite(logits[np.arange(len(rows)), greedy])
        result.logits[rows, : self._vocab_size] = logits
        result.tokens[rows] = np.where(sound, greedy, -1)
        tokens = self._drawn(result, rows, batch, sound)
        samples = {
            request.request_id: Sample((token,)) if token >= 0 else Sample((), error=_why(logits[i]))
            for i, (request, token) in enumerate(zip(batch.requests, tokens.tolist(), strict=True))
        }
        keep = [place for place, i in enumerate(batch.with_logprobs) if tokens[i] >= 0]
        wanted = [batch.with_logprobs[place] for place in keep]
        made = token_logprobs(raw[keep], tokens[wanted], batch.num_top(wanted)) if wanted else []
        for request, entry in zip(batch.at(wanted), made, strict=True):
            samples[request.request_id] = Sample((entry.token_id,), (entry,))
        return samples

    def _drawn(
        self, result: StepLogits, rows: Sequence[int], batch: SamplingBatch, sound: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """The token of each of ``rows``: ``result.tokens``, those of the sound rows that draw at random put in."""
        tokens = result.tokens[rows].astype(np.int64)
        use = batch.drawn[sound[batch.drawn]]
        if len(use):
            owners = [(batch.requests[i], 0) for i in use]
            tokens[use] = self._step.draw(_rows([rows[i] for i in use], owners))
        return tokens


def verified(tokens: Sequence[int], draft: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens that stand: each after the first was computed behind a drafted token, and holds only if that was right."""
    for k, drafted in enumerate(draft):
        if tokens[k] != drafted or tokens[k + 1] < 0:
            return tuple(tokens[: k + 1])
    return tuple(tokens)


def _rows(rows: list[int], owners: Sequence[tuple[RequestState, int]]) -> NDArray[np.void]:
    made = np.empty(len(rows), SAMPLING_ROW)
    made["row"] = rows
    seeds = np.array([request_seed(request) for request, _ in owners], dtype=np.uint64)
    made["uniform"] = uniform(seeds, np.array([r.num_output_tokens + k for r, k in owners], dtype=np.uint64))
    made["temperature"] = [request.params.temperature for request, _ in owners]
    made["top_p"] = [request.params.top_p for request, _ in owners]
    made["min_p"] = [request.params.min_p for request, _ in owners]
    made["top_k"] = [k if 0 < (k := request.params.top_k) < NO_TOP_K else NO_TOP_K for request, _ in owners]
    return made


def _why(row: NDArray[np.float32]) -> str:
    return unsound(row[row.argmax()], int((~np.isfinite(row)).sum()), len(row))
