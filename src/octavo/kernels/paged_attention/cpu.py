"""Attention with torch's own operations: gather the blocks, then ``scaled_dot_product_attention``.

The serving path on CPUs until the native kernels, and a plain path on CUDA. ``enable_gqa`` lets torch's CPU kernel read
each key head for its whole group of query heads; measured, that beats folding the group into query rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.operation import taking
from octavo.kernels.paged_attention.batch import LayerCache
from octavo.kernels.paged_attention.checks import PagedAttention
from octavo.kernels.paged_attention.plan import (
    AttentionPlan,
    DecodeGroup,
    PrefillChunk,
    Workspace,
    prefill_chunk,
    prepare,
)

__all__ = ["AttentionPlan", "attention", "paged_attention", "prepare", "write_kv"]


def write_kv(k: Tensor, v: Tensor, cache: LayerCache, plan: AttentionPlan) -> None:
    """Store the rows ``k``, ``v`` ``[T, num_kv_heads, head_dim]`` in their slots of the cache.

    A block that the step begins is cleared first: gathers read whole blocks, and 0 * NaN of an earlier owner is NaN.
    """
    if plan.opened_blocks is not None:
        cache.keys.index_fill_(0, plan.opened_blocks, 0.0)
        cache.values.index_fill_(0, plan.opened_blocks, 0.0)
    for rows, blocks in ((k, cache.keys), (v, cache.values)):
        blocks.view(-1, *blocks.shape[2:]).index_copy_(0, plan.slots, rows.to(blocks.dtype))


def attention(q: Tensor, cache: LayerCache, plan: AttentionPlan, scale: float, out: Tensor | None = None) -> Tensor:
    """``q``: ``[T, num_heads, head_dim]`` -> the same shape and dtype; ``checks.py`` has the formula.

    The keys and values of the step's own rows must already be written. ``out``: contiguous, written completely.
    """
    if out is None:
        if len(plan.decodes) == 1 and not plan.prefills:
            return _decode(q, cache, plan.decodes[0], plan.workspace, scale)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for group in plan.decodes:
        out[group.rows] = _decode(q[group.rows], cache, group, plan.workspace, scale)
    for chunk in plan.prefills:
        out[chunk.rows] = _prefill(q[chunk.rows], cache, chunk, plan.workspace, scale)
    return out


def _decode(q: Tensor, cache: LayerCache, group: DecodeGroup, workspace: Workspace, scale: float) -> Tensor:
    """``q``: the group's rows ``[n, num_heads, head_dim]`` -> their outputs."""
    n, shape = group.num_requests, cache.keys.shape[2:]
    keys, values = (rows.view(n, -1, *shape).transpose(1, 2) for rows in _gather(cache, group.blocks, workspace))
    result = F.scaled_dot_product_attention(
        q.unsqueeze(2), keys, values, attn_mask=group.mask, scale=scale, enable_gqa=True
    )
    return result.squeeze(2)


def _prefill(q: Tensor, cache: LayerCache, chunk: PrefillChunk, workspace: Workspace, scale: float) -> Tensor:
    """``q``: the chunk's rows ``[query_len, num_heads, head_dim]`` -> their outputs."""
    n, shape = chunk.num_tokens, cache.keys.shape[2:]
    keys, values = (rows.view(-1, *shape)[:n] for rows in _gather(cache, chunk.blocks, workspace))
    return _plain(q, keys, values, chunk.mask, scale, 0.0)


def _gather(cache: LayerCache, blocks: Tensor, workspace: Workspace) -> Iterator[Tensor]:
    """Keys, then values of whole blocks, ``[num_blocks, block_size * num_kv_heads * head_dim]``, in the workspace."""
    for cached, gathered, converted in zip(
        (cache.keys, cache.values), workspace.gathered, workspace.converted, strict=True
    ):
        source = cached.view(cached.shape[0], -1)
        size = blocks.shape[0] * source.shape[1]
        torch.index_select(source, 0, blocks, out=gathered[:size].view(-1, source.shape[1]))
        if converted is not gathered:
            converted[:size].copy_(gathered[:size])
        yield converted[:size]


@taking(PagedAttention)
def paged_attention(call: PagedAttention) -> Tensor:
    """The operation, request by request: reads the lengths back from the device, and copies what it attends to."""
    q, starts, contexts = call.q, call.query_starts.tolist(), call.context_lens.tolist()
    out, attend = torch.zeros_like(q), _capped if call.soft_cap else _plain
    for request, context_len in enumerate(contexts):
        rows = slice(starts[request], starts[request + 1])
        if context_len == 0 or rows.start == rows.stop:
            continue
        table, block_size = call.block_tables[request], call.keys.shape[1]
        chunk = prefill_chunk(rows, context_len, table, block_size, call.window, q.dtype)
        keys = _rows_of(call.keys, chunk, call.key_scale, q.dtype, call.debug)
        values = _rows_of(call.values, chunk, call.value_scale, q.dtype, call.debug)
        out[rows] = attend(q[rows], keys, values, chunk.mask, call.scale, call.soft_cap)
    return out


def _rows_of(cache: Tensor, chunk: PrefillChunk, scale: Tensor | None, dtype: torch.dtype, debug: bool) -> Tensor:
    """``[num_tokens, num_kv_heads, head_dim]`` in ``dtype``; ``debug``: NaN where a block id is out of range."""
    blocks, outside = chunk.blocks, (chunk.blocks < 0) | (chunk.blocks >= cache.shape[0])
    if debug:
        blocks = blocks.masked_fill(outside, 0)
    rows = cache.view(torch.uint8)[blocks].view(cache.dtype)  # indexing knows no 8-bit floats
    if scale is not None:
        rows = rows.to(torch.float32) * scale[:, None]
    rows = rows.to(dtype)
    if debug:
        rows = rows.masked_fill(outside[:, None, None, None], torch.nan)
    return rows.flatten(0, 1)[: chunk.num_tokens]


def _plain(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, _: float) -> Tensor:
    queries, key_heads, value_heads = (x.transpose(0, 1).unsqueeze(0) for x in (q, keys, values))
    result = F.scaled_dot_product_attention(
        queries, key_heads, value_heads, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )
    return result[0].transpose(0, 1)


def _capped(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, soft_cap: float) -> Tensor:
    """``scaled_dot_product_attention`` has no soft cap: the formula, in float32."""
    group = q.shape[1] // keys.shape[1]
    keys, values = (x.float().repeat_interleave(group, 1) for x in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", q.float(), keys) * scale
    scores = soft_cap * torch.tanh(scores / soft_cap)
    if mask is None:
        mask = torch.full(scores.shape[1:], -torch.inf, device=q.device).triu_(1)
    return torch.einsum("hqk,khd->qhd", (scores + mask).softmax(-1), values).to(q.dtype)
