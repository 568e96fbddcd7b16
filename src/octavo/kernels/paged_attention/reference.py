"""What is the right answer? The contract in float64 and plain loops; slow, and the judge of every back end."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.paged_attention.contract import AttentionBatch, LayerCache


def write_kv_reference(k: Tensor, v: Tensor, cache: LayerCache, slots: Tensor) -> None:
    """Put row ``i`` of ``k`` and ``v`` (``[T, num_kv_heads, head_dim]``) into slot ``slots[i]`` of the cache."""
    block_size = cache.keys.shape[1]
    for row, slot in enumerate(slots.tolist()):
        cache.keys[slot // block_size, slot % block_size] = k[row].to(cache.keys.dtype)
        cache.values[slot // block_size, slot % block_size] = v[row].to(cache.values.dtype)


def attention_reference(q: Tensor, cache: LayerCache, batch: AttentionBatch, scale: float, window: int) -> Tensor:
    """``q``: ``[T, num_heads, head_dim]`` -> float64 ``[T, num_heads, head_dim]``."""
    num_heads, block_size, num_kv_heads = q.shape[1], cache.keys.shape[1], cache.keys.shape[2]
    group, out, row = num_heads // num_kv_heads, torch.empty(q.shape, dtype=torch.float64), 0
    for request, (query_len, context_len) in enumerate(zip(batch.query_lens_cpu, batch.context_lens_cpu, strict=True)):
        table = batch.block_tables[request].tolist()
        for position in range(context_len - query_len, context_len):
            first = max(0, position - window + 1) if window else 0
            at = [(table[j // block_size], j % block_size) for j in range(first, position + 1)]
            for head in range(num_heads):
                keys = torch.stack([cache.keys[block, offset, head // group].double() for block, offset in at])
                values = torch.stack([cache.values[block, offset, head // group].double() for block, offset in at])
                weights = torch.softmax(scale * (keys @ q[row, head].double()), dim=0)
                out[row, head] = weights @ values
            row += 1
    return out
