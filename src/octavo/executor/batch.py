"""Plan -> tensors: which rows does one step compute, where do they stand, and where do their keys and values live?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.kernels.attention.contract import AttentionBatch
from octavo.models.batch import ModelBatch
from octavo.types import PlannedRequest


def decodes_first(requests: Sequence[PlannedRequest]) -> tuple[PlannedRequest, ...]:
    """The same requests, those with one token first, otherwise in their order: what the attention contract wants."""
    return tuple(sorted(requests, key=lambda planned: planned.num_tokens > 1))


def build_batch(requests: Sequence[PlannedRequest], block_size: int, device: torch.device) -> ModelBatch:
    """Flatten requests (ordered by ``decodes_first``, at least one) into one ragged batch on ``device``.

    Raises ``ValueError`` if a request computes no tokens, more than it knows, or has too few blocks for them.
    """
    lens = np.array([planned.num_tokens for planned in requests], dtype=np.int64)
    starts = np.array([planned.start for planned in requests], dtype=np.int64)
    token_ids = _token_ids(requests, lens)
    context_lens = starts + lens
    block_tables = _block_tables(requests, -(-context_lens // block_size))
    query_starts = np.concatenate(([0], np.cumsum(lens)))
    rows = np.repeat(np.arange(len(lens)), lens)
    positions = np.arange(len(token_ids)) + np.repeat(starts - query_starts[:-1], lens)
    slots = block_tables[rows, positions // block_size].astype(np.int64) * block_size + positions % block_size
    samples = np.array([planned.samples for planned in requests], dtype=bool)

    def tensor(array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    attention = AttentionBatch(
        query_starts=tensor(query_starts.astype(np.int32)),
        context_lens=tensor(context_lens.astype(np.int32)),
        block_tables=tensor(block_tables),
        slots=tensor(slots),
        positions=tensor(positions),
        query_lens_cpu=tuple(lens.tolist()),
        context_lens_cpu=tuple(context_lens.tolist()),
        num_decodes=int(np.count_nonzero(lens == 1)),
    )
    return ModelBatch(tensor(token_ids), attention, logit_rows=tensor(query_starts[1:][samples] - 1))


def _token_ids(requests: Sequence[PlannedRequest], lens: NDArray[np.int64]) -> NDArray[np.int64]:
    flat: list[int] = []
    for planned in requests:
        flat += planned.request.token_ids[planned.start : planned.start + planned.num_tokens]
    if len(flat) != lens.sum() or lens.min() < 1:
        bad = [f"{p.request.request_id}: {p.num_tokens} from {p.start}" for p in requests if _is_bad(p)]
        raise ValueError(f"a plan computes at least one known token of each request, got {'; '.join(bad)}")
    return np.array(flat, dtype=np.int64)


def _is_bad(planned: PlannedRequest) -> bool:
    return not 0 <= planned.start < planned.start + planned.num_tokens <= len(planned.request.token_ids)


def _block_tables(requests: Sequence[PlannedRequest], num_needed: NDArray[np.int64]) -> NDArray[np.int32]:
    """``[B, max needed]``; blocks beyond the needed ones (allocated ahead) are left out, short rows padded with 0."""
    num_held = np.array([len(planned.block_ids) for planned in requests])
    if (num_held < num_needed).any():
        row = int(np.argmax(num_held < num_needed))
        raise ValueError(
            f"request {requests[row].request.request_id} needs {num_needed[row]} blocks, its table has {num_held[row]}"
        )
    needed = num_needed.tolist()
    flat = chain.from_iterable(
        planned.block_ids if len(planned.block_ids) == n else planned.block_ids[:n]
        for planned, n in zip(requests, needed, strict=True)
    )
    width = int(num_needed.max())
    tables = np.zeros((len(needed), width), dtype=np.int32)
    tables[np.arange(width) < num_needed[:, None]] = np.fromiter(flat, dtype=np.int32, count=int(num_needed.sum()))
    return tables
