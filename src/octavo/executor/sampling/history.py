"""Token counts of each request for the sampling penalties, sparse and updated token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from octavo.executor.requests import RequestState


class TokenCounts:
    """The distinct tokens of one request and how often its output holds each.

    Prompt tokens are in the list with count 0, and only if a repetition penalty wants them.
    """

    def __init__(self, request: RequestState) -> None:
        self.request = request
        self._num_seen = request.num_prompt_tokens
        wants_prompt = request.params.repetition_penalty != 1.0
        prompt = request.token_ids[: self._num_seen] if wants_prompt else []
        self._tokens = np.unique(np.array(prompt, dtype=np.int64))
        self._counts = np.zeros(len(self._tokens), dtype=np.float32)
        self._places = {token: place for place, token in enumerate(self._tokens.tolist())}

    def advance(self) -> None:
        """Count the output tokens that have come since the last call."""
        for token in self.request.token_ids[self._num_seen :]:
            place = self._places.setdefault(token, len(self._places))
            if place == len(self._tokens):
                self._grow()
            self._tokens[place] = token
            self._counts[place] += 1
        self._num_seen = len(self.request.token_ids)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Distinct tokens that are counted: the output's, and the prompt's where a repetition penalty wants them."""
        return self._tokens[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.float32]:
        """Occurrences in the output of each of ``tokens``."""
        return self._counts[: len(self._places)]

    def _grow(self) -> None:
        room = max(64, len(self._tokens))
        self._tokens = np.concatenate((self._tokens, np.zeros(room, dtype=np.int64)))
        self._counts = np.concatenate((self._counts, np.zeros(room, dtype=np.float32)))


class History:
    """Token counts of the requests that were sampled in the last step; the rest is dropped and recounted if it returns.

    So nothing needs to tell the executor that a request has ended, and memory is bounded by the batch.
    """

    def __init__(self) -> None:
        self._counts: dict[str, TokenCounts] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def advance(self, requests: Sequence[RequestState]) -> list[TokenCounts]:
        """The counts of ``requests``, up to date, in their order."""
        current: dict[str, TokenCounts] = {}
        for request in requests:
            counts = self._counts.get(request.request_id)
            if counts is None or counts.request is not request:  # an id may be used again
                counts = TokenCounts(request)
            counts.advance()
            current[request.request_id] = counts
        self._counts = current
        return list(current.values())
