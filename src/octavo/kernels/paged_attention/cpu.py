"""Attention with torch's own operations: gather the blocks, then ``scaled_dot_product_attention``.

The serving path on CPUs until the native kernels, and a plain path on CUDA. ``enable_gqa`` lets torch's CPU kernel read
each key head for its whole group of query heads; measured, that beats folding the group into query rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.paged_attention.contract import LayerCache
from octavo.kernels.paged_attention.plan import AttentionPlan, DecodeGroup, PrefillChunk, Workspace, prepare

__all__ = ["AttentionPlan", "attention", "prepare", "write_kv"]


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
    """``q``: ``[T, num_heads, head_dim]`` -> the same shape and dtype; see the contract for the formula.

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
    keys, values = (
        rows.view(-1, *shape)[:n].transpose(0, 1).unsqueeze(0) for rows in _gather(cache, chunk.blocks, workspace)
    )
    queries, causal = q.transpose(0, 1).unsqueeze(0), chunk.mask is None
    result = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=chunk.mask, is_causal=causal, scale=scale, enable_gqa=True
    )
    return result[0].transpose(0, 1)


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
