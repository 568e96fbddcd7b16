"""Attention with torch's own operations: gather the blocks, then ``scaled_dot_product_attention``.

The serving path on CPUs until the native kernels, and a plain path on CUDA. Grouped-query attention never copies a key
head: the query heads of a group become query rows (decode) or the keys are broadcast by stride (prefill).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.attention.contract import LayerCache
from octavo.kernels.attention.plan import AttentionPlan, DecodeGroup, PrefillChunk, prepare

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
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    for group in plan.decodes:
        _decode(q, cache, group, scale, out)
    for chunk in plan.prefills:
        _prefill(q, cache, chunk, scale, out)
    return out


def _decode(q: Tensor, cache: LayerCache, group: DecodeGroup, scale: float, out: Tensor) -> None:
    n, (num_heads, head_dim), num_kv_heads = group.num_requests, q.shape[1:], cache.keys.shape[2]
    queries = q[:n] if group.rows is None else q.index_select(0, group.rows)
    keys, values = (
        cached.index_select(0, group.blocks).to(q.dtype).view(n, -1, num_kv_heads, head_dim).transpose(1, 2)
        for cached in (cache.keys, cache.values)
    )
    queries = queries.reshape(n, num_kv_heads, num_heads // num_kv_heads, head_dim)
    result = F.scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask, scale=scale)
    result = result.reshape(n, num_heads, head_dim)
    if group.rows is None:
        out[:n] = result
    else:
        out.index_copy_(0, group.rows, result)


def _prefill(q: Tensor, cache: LayerCache, chunk: PrefillChunk, scale: float, out: Tensor) -> None:
    (num_heads, head_dim), num_kv_heads = q.shape[1:], cache.keys.shape[2]
    group, n = num_heads // num_kv_heads, chunk.num_tokens
    rows = slice(chunk.start, chunk.start + chunk.query_len)
    queries = q[rows].view(-1, num_kv_heads, group, head_dim).permute(1, 2, 0, 3)  # [Hkv, G, Lq, D]
    keys, values = (
        cached.index_select(0, chunk.blocks).view(-1, num_kv_heads, head_dim)[:n].to(q.dtype)
        .transpose(0, 1).unsqueeze(1).expand(-1, group, -1, -1)  # [Hkv, G, Lk, D], stride 0 over G
        for cached in (cache.keys, cache.values)
    )  # fmt: skip
    result = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=chunk.mask, is_causal=chunk.mask is None, scale=scale
    )
    out[rows].view(-1, num_kv_heads, group, head_dim).copy_(result.permute(2, 0, 1, 3))
