"""Attention with torch's own operations: gather the blocks, then ``scaled_dot_product_attention``.

The serving path on CPUs until the native kernels, and a plain path on CUDA. Grouped-query attention never copies a key
head: the query heads of a group become query rows (decode) or the keys are broadcast by stride (prefill).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.attention.contract import LayerCache
from octavo.kernels.attention.plan import AttentionPlan, DecodeGroup, PrefillChunk, Workspace, prepare

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
        _prefill(q, cache, chunk, plan.workspace, scale, out)
    return out


def _decode(q: Tensor, cache: LayerCache, group: DecodeGroup, workspace: Workspace, scale: float) -> Tensor:
    """``q``: the group's rows ``[n, num_heads, head_dim]`` -> their outputs."""
    n, num_heads, head_dim = q.shape
    num_kv_heads = cache.keys.shape[2]
    queries = q.reshape(n, num_kv_heads, num_heads // num_kv_heads, head_dim)
    keys, values = (
        rows.view(n, -1, num_kv_heads, head_dim).transpose(1, 2) for rows in _gather(cache, group.blocks, workspace)
    )
    result = F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask, scale=scale)
    return result.reshape(n, num_heads, head_dim)


def _prefill(
    q: Tensor, cache: LayerCache, chunk: PrefillChunk, workspace: Workspace, scale: float, out: Tensor
) -> None:
    (num_heads, head_dim), num_kv_heads = q.shape[1:], cache.keys.shape[2]
    group, n = num_heads // num_kv_heads, chunk.num_tokens
    queries = q[chunk.rows].view(-1, num_kv_heads, group, head_dim).permute(1, 2, 0, 3)  # [Hkv, G, Lq, D]
    keys, values = (  # [Hkv, G, Lk, D], stride 0 over G
        rows.view(-1, num_kv_heads, head_dim)[:n].transpose(0, 1).unsqueeze(1).expand(-1, group, -1, -1)
        for rows in _gather(cache, chunk.blocks, workspace)
    )
    result = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=chunk.mask, is_causal=chunk.mask is None, scale=scale
    )
    out[chunk.rows].view(-1, num_kv_heads, group, head_dim).copy_(result.permute(2, 0, 1, 3))


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
