"""The one attention contract: ragged queries over a paged KV cache. Decode is a query of length one.

For request ``b`` with query rows ``query_starts[b] .. query_starts[b+1]`` (its last ``query_len`` positions) and
``context_lens[b]`` tokens in the cache (the query's own tokens included, already written), row ``i`` at position ``p``
attends to cache positions ``max(0, p - window + 1) .. p`` (``window = 0``: from 0):

    out[i, h] = sum_j softmax_j(scale * <q[i, h], k[j, h // group]>) v[j, h // group],   group = num_heads / num_kv_heads

Position ``j`` of request ``b`` lives in block ``block_tables[b, j // block_size]`` at offset ``j % block_size``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """Where the rows of a ragged batch stand and where their keys and values live.

    The ``*_cpu`` tuples repeat what the tensors say, for back ends that plan on the host.
    """

    query_starts: Tensor  # int32 [B + 1], on the device
    context_lens: Tensor  # int32 [B]
    block_tables: Tensor  # int32 [B, max_blocks], rows padded with 0
    slots: Tensor  # int64 [T]: block * block_size + offset of each row's own token
    positions: Tensor  # int64 [T]
    query_lens_cpu: tuple[int, ...]
    context_lens_cpu: tuple[int, ...]
    num_decodes: int  # the first num_decodes requests have query length 1


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Keys and values of one layer: each ``[num_blocks, block_size, num_kv_heads, head_dim]``."""

    keys: Tensor
    values: Tensor


def new_layer_cache(
    num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> LayerCache:
    """Untouched memory: pages are committed when a block is first written."""
    shape = (num_blocks, block_size, num_kv_heads, head_dim)
    return LayerCache(torch.empty(shape, dtype=dtype, device=device), torch.empty(shape, dtype=dtype, device=device))
