"""Argument checks and meta kernel of ``paged_attention``: ragged queries over a paged KV cache.

For request ``b`` with query rows ``query_starts[b] .. query_starts[b+1]`` (its last ``query_len`` positions) and
``context_lens[b]`` tokens in the cache (the query's own tokens included, already written), row ``i`` at position ``p``
attends to cache positions ``max(0, p - window + 1) .. p`` (``window = 0``: from 0):

    s_j = scale * <q[i, h], k[j, h // group]>,   group = num_heads / num_kv_heads
    out[i, h] = sum_j softmax_j(soft_cap * tanh(s_j / soft_cap)) v[j, h // group]     (``soft_cap = 0``: softmax_j(s_j))

Position ``j`` of request ``b`` lives in block ``block_tables[b, j // block_size]`` at offset ``j % block_size``. In a cache of
float8_e4m3fn, head ``g``'s keys are ``key_scale[g]`` times what is stored, its values ``value_scale[g]`` times.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value
from octavo.kernels.operation import taking

FP8 = torch.float8_e4m3fn


class PagedAttention(NamedTuple):
    """The arguments of one call.

    ``q``: ``[T, num_heads, head_dim]``; ``keys``, ``values``: ``[num_blocks, block_size, num_kv_heads, head_dim]``
    in ``q``'s dtype or float8_e4m3fn with float32 scales ``[num_kv_heads]``. ``query_starts``: int32 ``[B + 1]``,
    ``context_lens``: int32 ``[B]``, ``block_tables``: int32 ``[B, max_blocks]``. The first ``num_decodes`` requests have
    one query row each; a context of 0 (padding of a captured graph) gives zeros.
    ``max_context_len``: no context is longer; decides how decodes are split.
    ``split_tokens``: 0: chosen for the batch; else a context is split every so many tokens, and a row's bits do not
    depend on its neighbours. ``debug``: an out-of-range block id reads as NaN instead of memory outside the cache.
    """

    q: Tensor
    keys: Tensor
    values: Tensor
    query_starts: Tensor
    context_lens: Tensor
    block_tables: Tensor
    num_decodes: int
    max_context_len: int
    scale: float
    window: int = 0
    soft_cap: float = 0.0
    key_scale: Tensor | None = None
    value_scale: Tensor | None = None
    split_tokens: int = 0
    debug: bool = False

    @property
    def group(self) -> int:
        """Query heads that share a head of the cache."""
        return self.q.shape[1] // self.keys.shape[2]


@taking(PagedAttention)
def check(call: PagedAttention) -> None:
    """What the host can see; nothing is read back from the device."""
    q, keys, num_decodes = call.q, call.keys, call.num_decodes
    expect_tensor("q", q)
    expect_shape("q", q, (None, None, None), "[T, num_heads, head_dim]")
    check_cache(q, keys, call.values, call.key_scale, call.value_scale)
    heads, kv_heads = q.shape[1], keys.shape[2]
    expect_shape("keys", keys, (None, None, None, q.shape[2]), "[num_blocks, block_size, num_kv_heads, head_dim]")
    divides = kv_heads > 0 and heads % kv_heads == 0
    expect_value("q", divides, f"{heads} heads", f"a multiple of the cache's {kv_heads} heads")
    _check_lengths(call)
    num_requests = call.context_lens.shape[0]
    most = num_requests if num_requests < q.shape[0] else q.shape[0]
    expect_value("num_decodes", 0 <= num_decodes <= most, num_decodes, f"0 to {most}")
    only_decodes = num_decodes < num_requests or num_decodes == q.shape[0]
    expect_value("q", only_decodes, f"{q.shape[0]} rows", f"{num_decodes}: every request is a decode")
    room, longest = call.block_tables.shape[1] * keys.shape[1], call.max_context_len
    expect_value(
        "max_context_len", 0 <= longest <= room, longest, f"0 to {room}, the tokens that block_tables has room for"
    )
    expect_value("scale", call.scale > 0, call.scale, "a number above 0")
    for name, number in (("window", call.window), ("soft_cap", call.soft_cap), ("split_tokens", call.split_tokens)):
        expect_value(name, number >= 0, number, "a number that is not negative")


def _check_lengths(call: PagedAttention) -> None:
    for name, tensor in (
        ("query_starts", call.query_starts),
        ("context_lens", call.context_lens),
        ("block_tables", call.block_tables),
    ):
        expect_tensor(name, tensor, (torch.int32,))
        expect_same(name, tensor, "q", call.q, dtype=False)
    expect_shape("context_lens", call.context_lens, (None,), "[B]")
    requests = call.context_lens.shape[0]
    expect_shape("query_starts", call.query_starts, (requests + 1,), "[B + 1], as many requests as context_lens has")
    expect_shape(
        "block_tables", call.block_tables, (requests, None), "[B, max_blocks], as many rows as context_lens has"
    )


def check_cache(
    like: Tensor, keys: Tensor, values: Tensor, key_scale: Tensor | None, value_scale: Tensor | None
) -> None:
    """Keys and values of one shape, in the dtype of ``like`` or in float8_e4m3fn, which has to have its scales."""
    for name, cache in (("keys", keys), ("values", values)):
        expect_tensor(name, cache, (like.dtype, FP8))
        expect_same(name, cache, "the queries", like, dtype=False)
    expect_shape("keys", keys, (None, None, None, None), "[num_blocks, block_size, num_kv_heads, head_dim]")
    expect_value("keys", keys.shape[1] > 0, f"shape {list(keys.shape)}", "a block_size above 0")
    expect_shape("values", values, keys.shape, "the shape of keys")
    expect_same("values", values, "keys", keys)
    for name, scale in (("key_scale", key_scale), ("value_scale", value_scale)):
        if keys.dtype != FP8:
            expect_value(name, scale is None, "a tensor", f"None: a cache of {like.dtype} has no scales")
            continue
        checked = expect_tensor(name, scale, (torch.float32,))
        expect_shape(name, checked, (keys.shape[2],), "one scale for each head of the cache")
        expect_same(name, checked, "keys", keys, dtype=False)


@taking(PagedAttention)
def meta(call: PagedAttention) -> Tensor:
    """Shape and dtype of ``q``."""
    return torch.empty_like(call.q)
