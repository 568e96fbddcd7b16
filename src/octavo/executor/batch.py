"""Conversion of a flat batch to torch tensors, the torch models' ``ModelBatch``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.executor.flat import flatten
from octavo.executor.requests import Row
from octavo.kernels.paged_attention.batch import AttentionBatch
from octavo.models.batch import ModelBatch


def decodes_first(requests: Sequence[Row]) -> tuple[Row, ...]:
    """The same requests, those with one token first, otherwise in their order: the order that ``paged_attention`` takes."""
    return tuple(sorted(requests, key=lambda row: row.num_tokens > 1))


def build_batch(requests: Sequence[Row], block_size: int, device: torch.device) -> ModelBatch:
    """Requests (ordered by ``decodes_first``, at least one) as one ragged batch on ``device``. Raises as ``flatten``."""
    flat = flatten(requests, block_size).arrays()
    lens = np.diff(flat.query_starts)
    rows = np.repeat(np.arange(len(lens)), lens)
    blocks = flat.block_tables[rows, flat.positions // block_size].astype(np.int64)

    def tensor(array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    attention = AttentionBatch(
        query_starts=tensor(flat.query_starts),
        context_lens=tensor(flat.context_lens),
        block_tables=tensor(flat.block_tables),
        slots=tensor(blocks * block_size + flat.positions % block_size),
        positions=tensor(flat.positions.astype(np.int64)),
        query_lens_cpu=tuple(lens.tolist()),
        context_lens_cpu=tuple(flat.context_lens.tolist()),
        num_decodes=int(np.count_nonzero(lens == 1)),
    )
    return ModelBatch(
        tensor(flat.token_ids.astype(np.int64)), attention, logit_rows=tensor(flat.logit_rows.astype(np.int64))
    )
