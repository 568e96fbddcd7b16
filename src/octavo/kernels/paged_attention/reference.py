"""Float64 reference of ``paged_attention``: attention over the gathered keys and values, slow."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.operation import taking
from octavo.kernels.paged_attention.checks import PagedAttention


@taking(PagedAttention)
def paged_attention_reference(call: PagedAttention) -> Tensor:
    """Float64 ``[T, num_heads, head_dim]``, one row after the other."""
    out = torch.zeros(call.q.shape, dtype=torch.float64)
    starts, window, soft_cap = call.query_starts.tolist(), call.window, call.soft_cap
    for request, context_len in enumerate(call.context_lens.tolist()):
        if context_len == 0:
            continue
        at = call.block_tables[request].tolist()
        k = _context(call.keys, at, context_len, call.key_scale).repeat_interleave(call.group, 1)
        v = _context(call.values, at, context_len, call.value_scale).repeat_interleave(call.group, 1)
        for row in range(starts[request], starts[request + 1]):
            position = context_len - (starts[request + 1] - row)
            seen = slice(max(0, position - window + 1) if window else 0, position + 1)
            scores = call.scale * torch.einsum("hd,khd->hk", call.q[row].double(), k[seen])
            if soft_cap:
                scores = soft_cap * torch.tanh(scores / soft_cap)
            out[row] = torch.einsum("hk,khd->hd", scores.softmax(-1), v[seen])
    return out


def _context(cache: Tensor, table: list[int], context_len: int, scale: Tensor | None) -> Tensor:
    """A request's keys or values, float64 ``[context_len, num_kv_heads, head_dim]``; NaN from a block that is none."""
    blocks = [
        cache[block].double() if 0 <= block < cache.shape[0] else torch.full(cache.shape[1:], torch.nan).double()
        for block in table[: -(-context_len // cache.shape[1])]
    ]
    rows = torch.cat(blocks)[:context_len]
    return rows if scale is None else rows * scale.double()[:, None]
