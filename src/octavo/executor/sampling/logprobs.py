"""Log-probabilities of the chosen and the top-k tokens, of the unmodified distribution (before bias, penalties, temperature)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.types import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Tokens that may be among a row's most likely, in any order; of a row's k most likely none is missing."""

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    logprobs: NDArray[np.float32]

    @classmethod
    def none(cls) -> Alternatives:
        """For rows of which only the chosen token's is wanted."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def token_logprobs(
    logits: NDArray[np.float32], chosen: NDArray[np.int64], num_top: NDArray[np.int64]
) -> list[TokenLogprobs]:
    """One entry a row of ``logits`` ``[R, V]``: the chosen token, and the ``num_top`` most likely, equals by lowest id."""
    vocab_size, every_row = logits.shape[1], np.arange(len(chosen))
    peaks = logits.max(-1, keepdims=True)
    log_z = (peaks + np.log(np.exp(logits - peaks).sum(-1, dtype=np.float64, keepdims=True))).astype(np.float32)
    picked = (logits[every_row, chosen] - log_z[:, 0]).tolist()
    width = min(int(num_top.max(initial=0)), vocab_size)
    alternatives = Alternatives.none()
    if width:
        most_likely = np.sort(np.partition(logits, vocab_size - width)[:, vocab_size - width :])
        threshold = most_likely[every_row, width - np.clip(num_top, 1, width)]
        rows, ids = (logits >= threshold[:, None]).nonzero()  # the k most likely, and whatever ties with the last
        alternatives = Alternatives(rows, ids, logits[rows, ids] - log_z[rows, 0])
    return entries(chosen, picked, alternatives, num_top)


def entries(
    chosen: NDArray[np.int64], picked: list[float], alternatives: Alternatives, num_top: NDArray[np.int64]
) -> list[TokenLogprobs]:
    """``alternatives`` row by row, most likely first, cut to each row's ``num_top``; ``picked``: the chosen tokens' logprobs."""
    order = np.lexsort((alternatives.ids, -alternatives.logprobs, alternatives.rows))
    starts = np.searchsorted(alternatives.rows[order], np.arange(len(num_top) + 1))
    pairs = list(zip(alternatives.ids[order].tolist(), alternatives.logprobs[order].tolist(), strict=True))
    ends = np.minimum(starts[:-1] + num_top, starts[1:])
    tops = [tuple(pairs[start:end]) for start, end in zip(starts[:-1], ends, strict=True)]
    return [TokenLogprobs(int(token), p, top) for token, p, top in zip(chosen.tolist(), picked, tops, strict=True)]
