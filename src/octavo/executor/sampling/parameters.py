"""Sampling parameters of all rows of a batch as arrays, and which rows need which work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.executor.requests import RequestState
from octavo.executor.sampling.uniform import uniforms
from octavo.types import SamplingParams

GREEDY_BELOW = 1e-5  # a temperature this low differs from greedy by rounding noise alone


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """Row ``i`` of the logits belongs to ``requests[i]``. Row lists are ascending; most are empty most of the time."""

    requests: tuple[RequestState, ...]
    drawn: NDArray[np.int64]  # rows that draw at random; the others are greedy
    temperature: NDArray[np.float64]  # of the drawn rows, like the next four
    top_k: NDArray[np.int64]  # 2**31 where off
    min_p: NDArray[np.float64]
    top_p: NDArray[np.float64]
    uniform: NDArray[np.float64]  # in [0, 1)
    biased: list[int]
    unfinished: list[int]  # below min_tokens, with stop ids to mask
    penalised: list[int]
    with_logprobs: list[int]

    @classmethod
    def from_requests(cls, requests: Sequence[RequestState]) -> SamplingBatch:
        """Sorts the rows by what they need; ``uniform`` is a function of each request's seed and position."""
        params = [request.params for request in requests]
        drawn = [row for row, p in enumerate(params) if p.temperature >= GREEDY_BELOW]
        chosen = [params[row] for row in drawn]
        return cls(
            requests=tuple(requests),
            drawn=np.array(drawn, dtype=np.int64),
            temperature=np.array([p.temperature for p in chosen], dtype=np.float64),
            top_k=np.array([p.top_k if 0 < p.top_k < 2**31 else 2**31 for p in chosen], dtype=np.int64),
            min_p=np.array([p.min_p for p in chosen], dtype=np.float64),
            top_p=np.array([p.top_p for p in chosen], dtype=np.float64),
            uniform=uniforms([requests[row] for row in drawn]),
            biased=[row for row, p in enumerate(params) if p.logit_bias],
            unfinished=[row for row, request in enumerate(requests) if _is_unfinished(request)],
            penalised=[row for row, p in enumerate(params) if _has_penalty(p)],
            with_logprobs=[row for row, p in enumerate(params) if p.logprobs is not None],
        )

    def at(self, rows: Sequence[int]) -> list[RequestState]:
        """The requests of some rows."""
        return [self.requests[row] for row in rows]

    def num_top(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """How many alternatives each request wants the log-probabilities of."""
        return np.array([request.params.logprobs or 0 for request in self.at(rows)], dtype=np.int64)


def is_unedited(request: RequestState) -> bool:
    """Whether the request takes the model's logits as they are and wants nothing but a token."""
    p = request.params
    return p.logprobs is None and not p.logit_bias and not _is_unfinished(request) and not _has_penalty(p)


def _is_unfinished(request: RequestState) -> bool:
    return request.params.min_tokens > 0 and request.num_output_tokens < request.params.min_tokens


def _has_penalty(p: SamplingParams) -> bool:
    return p.repetition_penalty != 1.0 or p.presence_penalty != 0.0 or p.frequency_penalty != 0.0


def unsound(peak: np.float32, num_bad: int, vocab_size: int) -> str:
    """Why a row of logits has no token: ``peak`` is its largest, ``num_bad`` of them are not finite."""
    if np.isneginf(peak):
        return "no token is left to choose: the model, logit_bias and min_tokens put every logit to -inf"
    return f"the model's logits are not finite: {num_bad} of {vocab_size} are NaN or infinite"
