"""Logit edits before sampling: logit_bias, min_tokens mask, repetition, presence and frequency penalties, in this order.

Every edit is a list of (row, token) places, so its cost follows the number of tokens concerned, not the vocabulary. The logits
``[S, V]`` are a numpy array or a torch tensor: what is written here means the same to both, so it is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.executor.requests import RequestState
from octavo.executor.sampling.history import TokenCounts
from octavo.executor.sampling.parameters import SamplingBatch

Array = Any  # numpy's or torch's
Beside = Callable[[NDArray[Any]], Array]  # a numpy array as one of the logits' kind, on their device


def edit(logits: Array, batch: SamplingBatch, counts: Sequence[TokenCounts], beside: Beside) -> None:
    """Everything that the requests of ``batch`` want, in place. ``counts``: of ``batch.penalised``."""
    if batch.biased:
        add_logit_bias(logits, batch.biased, batch.at(batch.biased), beside)
    if batch.unfinished:
        mask_stop_ids(logits, batch.unfinished, batch.at(batch.unfinished), beside)
    if counts:
        apply_penalties(logits, batch.penalised, counts, beside)


def add_logit_bias(logits: Array, rows: Sequence[int], requests: Sequence[RequestState], beside: Beside) -> None:
    """``logits[row, token] += bias`` in place, for the requests that stand at ``rows``."""
    biases = [request.params.logit_bias or {} for request in requests]
    tokens = np.array([token for bias in biases for token in bias], dtype=np.int64)
    values = np.array([value for bias in biases for value in bias.values()], dtype=np.float32)
    places = _places(rows, [len(bias) for bias in biases], tokens, beside)
    logits[places] += beside(values)  # no place is there twice: a bias is a dictionary


def mask_stop_ids(logits: Array, rows: Sequence[int], requests: Sequence[RequestState], beside: Beside) -> None:
    """``logits[row, token] = -inf`` in place, for every stop id: the requests at ``rows`` must not end yet."""
    vocab_size = logits.shape[1]
    stops = [[token for token in request.stop_ids if 0 <= token < vocab_size] for request in requests]
    tokens = np.array([token for ids in stops for token in ids], dtype=np.int64)
    logits[_places(rows, [len(ids) for ids in stops], tokens, beside)] = float("-inf")


def apply_penalties(logits: Array, rows: Sequence[int], counts: Sequence[TokenCounts], beside: Beside) -> None:
    """Penalise what occurred, in place, for the requests that stand at ``rows``. vLLM's and OpenAI's definitions:

    - repetition (Keskar et al. 2019, CTRL; prompt and output): positive logits / r, negative logits * r;
    - then ``logit -= frequency * count + presence * (count > 0)``, with ``count`` taken over the output alone.
    """
    lengths = [len(item.tokens) for item in counts]
    places = _places(rows, lengths, np.concatenate([item.tokens for item in counts]), beside)
    count = np.concatenate([item.counts for item in counts])
    params = [item.request.params for item in counts]
    frequency = np.repeat(np.array([p.frequency_penalty for p in params], dtype=np.float32), lengths)
    presence = np.repeat(np.array([p.presence_penalty for p in params], dtype=np.float32), lengths)
    repetition = np.repeat(np.array([p.repetition_penalty for p in params], dtype=np.float32), lengths)

    values, factor = logits[places], beside(repetition)
    values = values.clip(min=0) / factor + values.clip(max=0) * factor  # one of the two is zero
    logits[places] = values - beside(frequency * count + presence * (count > 0))


def _places(
    rows: Sequence[int], lengths: Sequence[int], tokens: NDArray[np.int64], beside: Beside
) -> tuple[Array, Array]:
    """Row and column indices: ``lengths[i]`` of the ``tokens`` belong to ``rows[i]``."""
    row_index = np.repeat(np.array(rows, dtype=np.int64), np.array(lengths, dtype=np.int64))
    return beside(row_index), beside(tokens)
