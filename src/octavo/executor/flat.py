"""The rows of one step as flat integers: token ids, positions, block tables, rows whose logits are wanted.

Plain lists and one ``array``: a decode step has a few dozen of these integers, and every numpy call on arrays that small costs
microseconds, most of all right after a step has swept the processor's caches.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.executor.requests import Row

Int32s = NDArray[np.int32]
Draft = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """``T`` token rows of ``B`` requests, request after request.

    ``ints`` holds, one after the other: token_ids ``[T]``, positions ``[T]``, query_starts ``[B + 1]``, context_lens ``[B]``,
    block_tables ``[B, max_blocks]`` (rows padded with 0) and logit_rows ``[S]``: the last row of each request that samples and,
    before it, one for each token of its draft but the last.
    """

    ints: array[int]
    num_rows: int
    num_requests: int
    max_blocks: int
    num_logit_rows: int

    def arrays(self) -> FlatArrays:
        """The same as numpy arrays, without a copy."""
        t, b = self.num_rows, self.num_requests
        sizes = (t, t, b + 1, b, b * self.max_blocks, self.num_logit_rows)
        token_ids, positions, starts, lens, tables, rows = np.split(
            np.frombuffer(self.ints, np.int32), np.cumsum(sizes)[:-1]
        )
        return FlatArrays(token_ids, positions, starts, lens, tables.reshape(b, -1), rows)


@dataclass(frozen=True, slots=True)
class FlatArrays:
    """A ``FlatBatch`` by its parts, all int32."""

    token_ids: Int32s
    positions: Int32s
    query_starts: Int32s
    context_lens: Int32s
    block_tables: Int32s
    logit_rows: Int32s


def flatten(requests: Sequence[Row], block_size: int, drafts: Sequence[Draft] | None = None) -> FlatBatch:
    """Flatten at least one request's rows. ``drafts``: tokens to compute after each request's own, to see whether they are right.

    Raises ``ValueError`` if a request computes no tokens, more than it knows, or has too few blocks for them.
    """
    token_ids: list[int] = []
    positions: list[int] = []
    query_starts = [0]
    context_lens: list[int] = []
    logit_rows: list[int] = []
    tables: list[Sequence[int]] = []
    for index, (request, start, num_tokens, samples, _) in enumerate(requests):
        block_ids, draft = request.block_ids, drafts[index] if drafts else ()
        end = start + num_tokens
        context = end + len(draft)
        num_blocks = -(-context // block_size)
        if not 0 <= start < end <= len(request.token_ids) or num_blocks > len(block_ids):
            raise ValueError(_wrong(requests[index], num_blocks))
        token_ids += request.token_ids[start:end]
        token_ids += draft
        positions += range(start, context)
        query_starts.append(len(token_ids))
        context_lens.append(context)
        tables.append(block_ids if len(block_ids) == num_blocks else block_ids[:num_blocks])
        if samples:
            logit_rows += range(len(token_ids) - 1 - len(draft), len(token_ids))
    width = max(map(len, tables))
    ints = array("i", token_ids)
    for part in (positions, query_starts, context_lens):
        ints.extend(part)
    for table in tables:
        ints.extend(table)
        ints.extend([0] * (width - len(table)))
    ints.extend(logit_rows)
    return FlatBatch(ints, len(token_ids), len(tables), width, len(logit_rows))


def _wrong(row: Row, num_blocks: int) -> str:
    request, start, num_tokens, _, _ = row
    if num_blocks > len(request.block_ids):
        return f"request {request.request_id} needs {num_blocks} blocks, its table has {len(request.block_ids)}"
    return (
        "a plan computes at least one known token of each request, got "
        f"{request.request_id}: {num_tokens} from {start} of {len(request.token_ids)}"
    )
