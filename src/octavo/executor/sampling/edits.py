"""What changes single logits before the choice: logit_bias, the min_tokens mask and the penalties, in this order.

Every edit is a list of (row, token) places, so its cost follows the number of tokens concerned, not the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.executor.sampling.history import TokenCounts
from octavo.types import Request


def add_logit_bias(logits: Tensor, rows: Sequence[int], requests: Sequence[Request]) -> None:
    """``logits[row, token] += bias`` in place, for the requests that stand at ``rows``."""
    biases = [request.params.logit_bias or {} for request in requests]
    tokens = np.array([token for bias in biases for token in bias], dtype=np.int64)
    values = np.array([value for bias in biases for value in bias.values()], dtype=np.float32)
    places = _places(logits, rows, [len(bias) for bias in biases], tokens)
    logits.index_put_(places, torch.from_numpy(values).to(logits.device), accumulate=True)


def mask_stop_ids(logits: Tensor, rows: Sequence[int], requests: Sequence[Request]) -> None:
    """``logits[row, token] = -inf`` in place, for every stop id: the requests at ``rows`` must not end yet."""
    vocab_size = logits.shape[1]
    stops = [[token for token in request.stop_ids if 0 <= token < vocab_size] for request in requests]
    tokens = np.array([token for ids in stops for token in ids], dtype=np.int64)
    places = _places(logits, rows, [len(ids) for ids in stops], tokens)
    logits.index_put_(places, torch.tensor(float("-inf"), device=logits.device))


def apply_penalties(logits: Tensor, rows: Sequence[int], counts: Sequence[TokenCounts]) -> None:
    """Penalise what occurred, in place, for the requests that stand at ``rows``. vLLM's and OpenAI's definitions:

    - repetition (Keskar et al. 2019, CTRL; prompt and output): positive logits / r, negative logits * r;
    - then ``logit -= frequency * count + presence * (count > 0)``, with ``count`` taken over the output alone.
    """
    lengths = [len(item.tokens) for item in counts]
    places = _places(logits, rows, lengths, np.concatenate([item.tokens for item in counts]))
    count = np.concatenate([item.counts for item in counts])
    params = [item.request.params for item in counts]
    frequency = np.repeat(np.array([p.frequency_penalty for p in params], dtype=np.float32), lengths)
    presence = np.repeat(np.array([p.presence_penalty for p in params], dtype=np.float32), lengths)
    repetition = np.repeat(np.array([p.repetition_penalty for p in params], dtype=np.float32), lengths)

    values = logits[places]
    factor = torch.from_numpy(repetition).to(logits.device)
    values = torch.where(values > 0, values / factor, values * factor)
    values -= torch.from_numpy(frequency * count + presence * (count > 0)).to(logits.device)
    logits.index_put_(places, values)


def _places(
    logits: Tensor, rows: Sequence[int], lengths: Sequence[int], tokens: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Row and column indices: ``lengths[i]`` of the ``tokens`` belong to ``rows[i]``."""
    row_index = np.repeat(np.array(rows, dtype=np.int64), np.array(lengths, dtype=np.int64))
    return torch.from_numpy(row_index).to(logits.device), torch.from_numpy(tokens).to(logits.device)
