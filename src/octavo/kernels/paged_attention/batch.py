"""A ragged attention batch (where its rows and their keys and values live) and one layer's paged KV cache: tensors and shapes."""

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
