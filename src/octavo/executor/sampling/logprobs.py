"""How likely were the chosen token and its rivals? Of the model's own distribution: before bias, penalties, temperature."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.types import TokenLogprobs


def token_logprobs(logits: Tensor, chosen: NDArray[np.int64], num_top: NDArray[np.int64]) -> list[TokenLogprobs]:
    """One entry a row of ``logits`` ``[R, V]``: the chosen token, and the ``num_top`` most likely, equals by lowest id."""
    log_z = torch.logsumexp(logits, -1, keepdim=True)
    picked = (logits.gather(1, torch.from_numpy(chosen).to(logits.device)[:, None]) - log_z)[:, 0].tolist()
    tops: list[tuple[tuple[int, float], ...]] = [()] * len(chosen)
    width = min(int(num_top.max(initial=0)), logits.shape[1])
    if width:
        threshold = logits.topk(width).values.gather(1, _last(num_top, width).to(logits.device))
        rows, ids = (logits >= threshold).nonzero(as_tuple=True)  # the k most likely, and whatever ties with the last
        values = (logits[rows, ids] - log_z[rows, 0]).cpu().numpy()
        tops = _group(rows.cpu().numpy(), ids.cpu().numpy(), values, num_top)
    return [TokenLogprobs(int(token), p, top) for token, p, top in zip(chosen.tolist(), picked, tops, strict=True)]


def _last(num_top: NDArray[np.int64], width: int) -> Tensor:
    return torch.from_numpy(np.clip(num_top, 1, width) - 1)[:, None]


def _group(
    rows: NDArray[np.int64], ids: NDArray[np.int64], values: NDArray[np.float32], num_top: NDArray[np.int64]
) -> list[tuple[tuple[int, float], ...]]:
    """Candidates row by row, most likely first, cut to each row's number."""
    order = np.lexsort((ids, -values, rows))
    starts = np.searchsorted(rows[order], np.arange(len(num_top) + 1))
    pairs = list(zip(ids[order].tolist(), values[order].tolist(), strict=True))
    ends = np.minimum(starts[:-1] + num_top, starts[1:])
    return [tuple(pairs[start:end]) for start, end in zip(starts[:-1], ends, strict=True)]
