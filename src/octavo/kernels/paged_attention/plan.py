"""Gather plan of paged attention on torch: blocks, groups and masks of a step, computed once and used by every layer.

Decodes are batched: requests of similar length share one padded gather and one call. Padding repeats a block of the same
request, so a request only ever sees its own keys and values, and a mask of -inf removes them. Prefill chunks run request
by request over exactly their own context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.kernels.paged_attention.batch import AttentionBatch, LayerCache

CALL_COST_BYTES = 400_000  # what one more group costs in fixed overhead, as bytes gathered in the same time
TILE_BYTES = 4 << 20  # keys and values gathered at once: they are read again at once, while caches still hold them


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Requests with query length 1 that share one gather of ``num_blocks`` blocks each."""

    rows: slice | Tensor  # their query rows: int64 [n], or a slice where they stand side by side
    num_requests: int
    blocks: Tensor  # int64 [n * num_blocks]
    mask: Tensor  # [n, 1, 1, num_blocks * block_size]: 0 where the row may look, else -inf


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """One request with query rows ``rows`` over ``num_tokens`` gathered positions."""

    rows: slice
    blocks: Tensor  # int64 [num_blocks]
    num_tokens: int
    mask: Tensor | None  # [query_len, num_tokens]; None: plainly causal over equal lengths


@dataclass(frozen=True, slots=True)
class Workspace:
    """Memory that every layer of a step gathers into: fresh memory for each layer would cost its page faults."""

    gathered: tuple[Tensor, Tensor]  # keys and values in the cache's dtype: flat
    converted: tuple[Tensor, Tensor]  # the same in the arithmetic's dtype; the very same memory if it is one dtype


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """A step's work for the layers with one window."""

    slots: Tensor
    opened_blocks: Tensor | None  # int64: blocks that this step begins and leaves partly empty
    decodes: tuple[DecodeGroup, ...]
    prefills: tuple[PrefillChunk, ...]
    workspace: Workspace


def prepare(batch: AttentionBatch, cache: LayerCache, window: int, dtype: torch.dtype) -> AttentionPlan:
    """Plan a step for the layers with this ``window`` (0: global), whose caches all look like ``cache``.

    ``dtype``: the arithmetic's, and so the masks'.
    """
    block_size, block_bytes = cache.keys.shape[1], 2 * cache.keys[0].numel() * dtype.itemsize
    groups = _group(_decode_extents(batch, block_size, window), block_bytes)
    decodes = tuple(_decode_group(batch, rows, block_size, window, dtype) for rows in groups)
    prefills = _prefill_chunks(batch, block_size, window, dtype)
    sizes = [0, *(len(group.blocks) for group in decodes), *(len(chunk.blocks) for chunk in prefills)]
    return AttentionPlan(
        slots=batch.slots,
        opened_blocks=_opened_blocks(batch, block_size),
        decodes=decodes,
        prefills=prefills,
        workspace=_workspace(cache, dtype, max(sizes)),
    )


def _workspace(cache: LayerCache, dtype: torch.dtype, num_blocks: int) -> Workspace:
    size = num_blocks * cache.keys[0].numel()
    gathered = cache.keys.new_empty(size), cache.values.new_empty(size)
    same = cache.keys.dtype is dtype
    converted = gathered if same else (cache.keys.new_empty(size, dtype=dtype), cache.keys.new_empty(size, dtype=dtype))
    return Workspace(gathered, converted)


def _decode_extents(batch: AttentionBatch, block_size: int, window: int) -> list[int]:
    """Blocks that each decode request has to look at."""
    return [
        (context - 1) // block_size - _first_block(context, 1, block_size, window) + 1
        for context in batch.context_lens_cpu[: batch.num_decodes]
    ]


def _first_block(context_len: int, query_len: int, block_size: int, window: int) -> int:
    """The block of the oldest position that the first of the query rows may look at."""
    return max(0, context_len - query_len - window + 1) // block_size if window else 0


def _group(extents: Sequence[int], block_bytes: int) -> list[list[int]]:
    """Request numbers by group: of similar length, and no more at once than ``TILE_BYTES``."""
    call_cost_blocks = max(1, CALL_COST_BYTES // block_bytes)
    order = sorted(range(len(extents)), key=lambda i: -extents[i])
    pending, groups = [order] if order else [], []
    while pending:
        group = pending.pop()
        longest = extents[group[0]]
        saved, cut = max(((longest - extents[r]) * (len(group) - i), i) for i, r in enumerate(group))
        if saved > call_cost_blocks:  # the padding saved is worth one more call
            pending += [group[cut:], group[:cut]]
            continue
        group.sort()
        size = max(1, TILE_BYTES // (longest * block_bytes))
        groups += [group[i : i + size] for i in range(0, len(group), size)]
    return groups


def _decode_group(
    batch: AttentionBatch, rows: list[int], block_size: int, window: int, dtype: torch.dtype
) -> DecodeGroup:
    device = batch.block_tables.device
    contexts = [batch.context_lens_cpu[r] for r in rows]
    firsts = [_first_block(c, 1, block_size, window) for c in contexts]
    lasts = [(c - 1) // block_size for c in contexts]
    num_blocks = max(last - first for first, last in zip(firsts, lasts, strict=True)) + 1
    side_by_side = rows[-1] - rows[0] + 1 == len(rows)
    bounds = torch.tensor([firsts, lasts, contexts, rows], device=device).unsqueeze(2)  # [4, n, 1]
    first, last, context, row = bounds.unbind()
    columns = torch.minimum(first + torch.arange(num_blocks, device=device), last)
    blocks = batch.block_tables[row, columns].to(torch.int64)
    position = first * block_size + torch.arange(num_blocks * block_size, device=device)
    visible = position < context
    if window:
        visible &= position >= context - window
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible, -torch.inf)
    at = slice(rows[0], rows[-1] + 1) if side_by_side else row[:, 0]
    return DecodeGroup(at, len(rows), blocks.flatten(), mask[:, None, None, :])


def _prefill_chunks(
    batch: AttentionBatch, block_size: int, window: int, dtype: torch.dtype
) -> tuple[PrefillChunk, ...]:
    chunks, start = [], batch.num_decodes
    for request in range(batch.num_decodes, len(batch.query_lens_cpu)):
        rows = slice(start, start + batch.query_lens_cpu[request])
        table = batch.block_tables[request]
        chunks.append(prefill_chunk(rows, batch.context_lens_cpu[request], table, block_size, window, dtype))
        start = rows.stop
    return tuple(chunks)


def prefill_chunk(
    rows: slice, context_len: int, table: Tensor, block_size: int, window: int, dtype: torch.dtype
) -> PrefillChunk:
    """One request: its query rows are the last of ``context_len`` tokens, in the blocks of ``table`` ``[max_blocks]``."""
    query_len = rows.stop - rows.start
    first = _first_block(context_len, query_len, block_size, window)
    blocks = table[first : (context_len - 1) // block_size + 1].to(torch.int64)
    num_tokens = context_len - first * block_size
    plain = query_len == num_tokens and (window == 0 or window >= context_len)
    mask = None if plain else _causal_mask(query_len, num_tokens, window, dtype, blocks.device)
    return PrefillChunk(rows, blocks, num_tokens, mask)


def _causal_mask(query_len: int, num_tokens: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[query_len, num_tokens]`` for queries that are the last of the tokens."""
    hidden = torch.ones(query_len, num_tokens, dtype=torch.bool, device=device).triu_(num_tokens - query_len + 1)
    if window:
        hidden |= torch.ones_like(hidden).tril_(num_tokens - query_len - window)
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)


def _opened_blocks(batch: AttentionBatch, block_size: int) -> Tensor | None:
    """Last blocks that this step begins but does not fill: their tails hold an earlier owner's leftovers."""
    requests, columns = [], []
    for request, (query_len, context_len) in enumerate(zip(batch.query_lens_cpu, batch.context_lens_cpu, strict=True)):
        used = context_len % block_size
        if used and used <= query_len:
            requests.append(request)
            columns.append(context_len // block_size)
    if not requests:
        return None
    at = torch.tensor([requests, columns], device=batch.block_tables.device)
    return batch.block_tables[at[0], at[1]].to(torch.int64)
