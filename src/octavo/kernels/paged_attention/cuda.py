"""Decode attention in CUDA C++, to compare with Triton's; each row of a prefill is computed as a decode.

So every argument is honoured, but a prefill reads the cache once a row: serve prefills with Triton.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from octavo.kernels.gpu.module import CudaAhead, Kernel, num_multiprocessors
from octavo.kernels.gpu.nvrtc import CudaSource
from octavo.kernels.gpu.types import rows_aligned, type_name
from octavo.kernels.operation import taking
from octavo.kernels.paged_attention.checks import PagedAttention

THREADS = 128
TOKENS = 4  # that a lane has under way; half of them from an fp8 cache, whose packs hold twice the elements
MOST_HEADS = 8  # of the query heads that share a kv head; more are taken in parts
BLOCKS_PER_MULTIPROCESSOR, SHORTEST_SPLIT = 8, 256
ATTEND, MERGE = "PPPPPPPPiiiiiiiiiff", "PPPqiii"


class Tile(NamedTuple):
    """What a thread block works on: query heads that share a key head, and the shape of a block of the cache."""

    heads: int
    head_dim: int
    block_size: int


def source(entry: str, q: torch.dtype, kv: torch.dtype, tile: Tile, vector: bool, debug: bool) -> CudaSource:
    """``vector``: rows of the cache begin at multiples of 16 bytes."""
    heads, head_dim, block_size = tile
    loads = head_dim * kv.itemsize // 16 if vector else head_dim
    team = min(32, 1 << (loads - 1).bit_length())
    defines = (
        *(("T", type_name(q)), ("C", type_name(kv)), ("VECTOR", int(vector)), ("DEBUG", int(debug))),
        *(
            ("HEADS", heads),
            ("HEAD_DIM", head_dim),
            ("BLOCK_SIZE", block_size),
            ("TOKENS", TOKENS // 2 if kv.itemsize == 1 else TOKENS),
        ),
        *(("TEAM", team), ("EACH", -(-loads // team))),
    )
    attends = entry == "attention_pieces"
    shared = THREADS // team * heads * (head_dim + 2) * 4 if attends else 0
    return CudaSource(
        Path(__file__).with_name("attention.cu"), entry, ATTEND if attends else MERGE, THREADS, shared, defines
    )


_kernel = cache(lambda *variant: Kernel(source(*variant)))


@taking(PagedAttention)
def paged_attention(call: PagedAttention) -> Tensor:
    """Shape and dtype of ``q``."""
    q, keys, block_tables = call.q, call.keys, call.block_tables
    (rows, heads, head_dim), (num_blocks, block_size, kv_heads, _) = q.shape, keys.shape
    out, requests = torch.empty_like(q), call.context_lens.shape[0]
    if not out.numel() or not requests or not call.max_context_len:
        return out.zero_()
    parts = -(-call.group // MOST_HEADS)
    tile = Tile(-(-call.group // parts), head_dim, block_size)
    blocks = rows * kv_heads * parts
    split_size = call.split_tokens or _split_size(blocks, call.max_context_len, q.device)
    splits = -(-call.max_context_len // split_size)
    variant = q.dtype, keys.dtype, tile, rows_aligned(head_dim, keys, call.values), call.debug
    partial = q.new_empty((rows, heads, splits, head_dim + 2), dtype=torch.float32)
    _kernel("attention_pieces", *variant).launch(
        q.device,
        blocks * splits,
        *(q, keys, call.values, call.query_starts, call.context_lens, block_tables),
        *(0 if call.key_scale is None else call.key_scale, partial),
        *(requests, rows, heads, kv_heads, num_blocks, block_tables.shape[1], splits, split_size),
        *(call.window, call.scale, call.soft_cap),
    )
    _kernel("attention_together", *variant).launch(
        q.device,
        -(-rows * heads // (THREADS // 32)),
        *(partial, 0 if call.value_scale is None else call.value_scale, out, rows * heads, heads, kv_heads, splits),
    )
    return out


def _split_size(blocks: int, max_context_len: int, device: torch.device) -> int:
    """Tokens of a split, so that all multiprocessors have work, but none so little that the second kernel costs more."""
    splits = -(-BLOCKS_PER_MULTIPROCESSOR * num_multiprocessors(device) // blocks)
    return max(SHORTEST_SPLIT, -(-max_context_len // splits))


_LLAMA = Tile(4, 128, 16)
AHEAD = (
    CudaAhead("pieces bfloat16", source("attention_pieces", torch.bfloat16, torch.bfloat16, _LLAMA, True, False)),
    CudaAhead("pieces fp8", source("attention_pieces", torch.bfloat16, torch.float8_e4m3fn, _LLAMA, True, False)),
    CudaAhead("together", source("attention_together", torch.bfloat16, torch.bfloat16, _LLAMA, True, False)),
)
