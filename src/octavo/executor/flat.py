"""Plan -> flat arrays: which rows does one step compute, where do they stand, and where do their keys and values live?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from octavo.types import PlannedRequest

Int32s = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """``T`` token rows of ``B`` requests, request after request; all arrays int32 and contiguous."""

    token_ids: Int32s  # [T]
    positions: Int32s  # [T]
    query_starts: Int32s  # [B + 1]
    context_lens: Int32s  # [B]
    block_tables: Int32s  # [B, max_blocks], rows padded with 0
    logit_rows: Int32s  # [S]: the last row of each request that samples; with a draft, also the rows of its tokens


def flatten(
    requests: Sequence[PlannedRequest], block_size: int, drafts: Sequence[tuple[int, ...]] | None = None
) -> FlatBatch:
    """Flatten at least one request. ``drafts``: tokens to compute after each request's own, to see whether they are right.

    Raises ``ValueError`` if a request computes no tokens, more than it knows, or has too few blocks for them.
    """
    lens = np.array([planned.num_tokens for planned in requests], dtype=np.int32)
    starts = np.array([planned.start for planned in requests], dtype=np.int32)
    token_ids = _token_ids(requests, lens)
    samples = np.array([planned.samples for planned in requests], dtype=bool)
    if drafts is None:
        num_drafted = np.zeros(len(lens), np.int32)
    else:
        num_drafted = np.array([len(draft) for draft in drafts], dtype=np.int32)
        token_ids = _with_drafts(token_ids, lens, drafts)
        lens = lens + num_drafted
    context_lens = starts + lens
    query_starts = np.zeros(len(lens) + 1, np.int32)
    np.cumsum(lens, out=query_starts[1:])
    positions = np.arange(len(token_ids), dtype=np.int32) + np.repeat(starts - query_starts[:-1], lens)
    return FlatBatch(
        token_ids=token_ids,
        positions=positions,
        query_starts=query_starts,
        context_lens=context_lens,
        block_tables=_block_tables(requests, -(-context_lens // block_size)),
        logit_rows=_logit_rows(query_starts[1:][samples], num_drafted[samples]),
    )


def _logit_rows(ends: Int32s, num_drafted: Int32s) -> Int32s:
    """The last ``1 + num_drafted`` rows before each of ``ends``."""
    if not num_drafted.any():
        return ends - np.int32(1)
    return np.concatenate(
        [np.arange(end - 1 - n, end, dtype=np.int32) for end, n in zip(ends, num_drafted, strict=True)]
    )


def _with_drafts(token_ids: Int32s, lens: Int32s, drafts: Sequence[tuple[int, ...]]) -> Int32s:
    parts: list[Int32s] = []
    for own, draft in zip(np.split(token_ids, np.cumsum(lens)[:-1]), drafts, strict=True):
        parts += [own, np.array(draft, np.int32)]
    return np.concatenate(parts)


def _token_ids(requests: Sequence[PlannedRequest], lens: Int32s) -> Int32s:
    flat: list[int] = []
    for planned in requests:
        flat += planned.request.token_ids[planned.start : planned.start + planned.num_tokens]
    if len(flat) != lens.sum() or lens.min() < 1:
        bad = [f"{p.request.request_id}: {p.num_tokens} from {p.start}" for p in requests if _is_bad(p)]
        raise ValueError(f"a plan computes at least one known token of each request, got {'; '.join(bad)}")
    return np.array(flat, dtype=np.int32)


def _is_bad(planned: PlannedRequest) -> bool:
    return not 0 <= planned.start < planned.start + planned.num_tokens <= len(planned.request.token_ids)


def _block_tables(requests: Sequence[PlannedRequest], num_needed: Int32s) -> Int32s:
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
