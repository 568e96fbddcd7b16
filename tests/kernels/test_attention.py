"""The attention back end against the float64 reference: ragged shapes, block edges, windows, groups, poisoned memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from octavo.kernels.paged_attention import plan as planning
from octavo.kernels.paged_attention.batch import AttentionBatch, LayerCache, new_layer_cache
from octavo.kernels.paged_attention.cpu import attention, write_kv
from octavo.kernels.paged_attention.plan import prepare
from octavo.kernels.paged_attention.reference import paged_attention_reference
from support.ragged import Blocks, attention_batch

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def step(query_lens, context_lens, block_size, heads, kv_heads, head_dim, *, window=0, seed=0, dtype=torch.float32):
    """Fill the past of every request, poison everything else, run one step; returns (got, wanted, cache, batch)."""
    torch.manual_seed(seed)
    blocks = Blocks(sum(-(-c // block_size) for c in context_lens) + 3, block_size, seed)
    tables = [blocks.row([0] * c).block_ids for c in context_lens]
    cache = new_layer_cache(blocks.num_blocks, block_size, kv_heads, head_dim, dtype, torch.device("cpu"))
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    past = [(n, c - n, t) for n, c, t in zip(query_lens, context_lens, tables, strict=True) if c > n]
    past.sort(key=lambda p: p[1] != 1)
    if past:
        lens = [c for _, c, _ in past]
        run_writes(attention_batch(lens, lens, [t for *_, t in past], block_size), cache, block_size)
    batch = attention_batch(query_lens, context_lens, tables, block_size)
    k, v = run_writes(batch, cache, block_size)
    q = torch.randn(sum(query_lens), heads, head_dim)
    plan = make_plan(batch, cache, window)
    out = torch.full_like(q, torch.nan)
    got = attention(q, cache, plan, 0.3, out)
    assert got is out
    return got, attention_reference(q, cache, batch, 0.3, window), (k, v), cache, batch


def write_kv_reference(k: Tensor, v: Tensor, cache: LayerCache, slots: Tensor) -> None:
    """Put row ``i`` of ``k`` and ``v`` (``[T, num_kv_heads, head_dim]``) into slot ``slots[i]`` of the cache."""
    block_size = cache.keys.shape[1]
    for row, slot in enumerate(slots.tolist()):
        cache.keys[slot // block_size, slot % block_size] = k[row].to(cache.keys.dtype)
        cache.values[slot // block_size, slot % block_size] = v[row].to(cache.values.dtype)


def attention_reference(q: Tensor, cache: LayerCache, batch: AttentionBatch, scale: float, window: int) -> Tensor:
    """``paged_attention_reference`` for the batch of the torch models."""
    lengths = batch.query_starts, batch.context_lens, batch.block_tables, batch.num_decodes
    return paged_attention_reference(
        q, cache.keys, cache.values, *lengths, max(batch.context_lens_cpu), scale, window=window
    )


def make_plan(batch, cache: LayerCache, window: int):
    return prepare(batch, cache, window, torch.float32)


def run_writes(batch, cache: LayerCache, block_size: int):
    shape = (len(batch.slots), *cache.keys.shape[2:])
    k, v = torch.randn(shape), torch.randn(shape)
    write_kv(k, v, cache, make_plan(batch, cache, 0))
    return k, v


@pytest.mark.parametrize("block_size", [1, 16])
@pytest.mark.parametrize("query_len", [1, 2, 15, 16, 17, 37])
@pytest.mark.parametrize("past", [0, 1, 15, 16, 33])
def test_one_request(query_len, past, block_size):
    got, wanted, *_ = step([query_len], [past + query_len], block_size, 2, 1, 8)
    torch.testing.assert_close(got.double(), wanted, **TOLERANCE)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 4, 8), (9, 3, 16), (8, 1, 4), (6, 2, 10), (1, 1, 64)])
@pytest.mark.parametrize("window", [0, 1, 5, 16, 100])
def test_ragged_batch(heads, kv_heads, head_dim, window):
    query_lens, context_lens = [1, 1, 1, 1, 2, 7, 18], [1, 16, 17, 38, 2, 30, 18]
    got, wanted, *_ = step(query_lens, context_lens, 8, heads, kv_heads, head_dim, window=window)
    torch.testing.assert_close(got.double(), wanted, **TOLERANCE)


@pytest.mark.parametrize("seed", range(8))
def test_random_batches(seed):
    torch.manual_seed(100 + seed)
    num_decodes, num_chunks = int(torch.randint(0, 7, ())), int(torch.randint(0, 4, ())) + 1
    query_lens = [1] * num_decodes + torch.randint(2, 38, (num_chunks,)).tolist()
    context_lens = [n + int(torch.randint(0, 40, ())) for n in query_lens]
    window = int(torch.randint(0, 2, ())) * int(torch.randint(1, 40, ()))
    got, wanted, *_ = step(query_lens, context_lens, 4, 4, 2, 8, window=window, seed=seed)
    torch.testing.assert_close(got.double(), wanted, **TOLERANCE)


@pytest.mark.parametrize(("call_cost", "tile", "num_groups"), [(0, 1 << 40, 5), (1 << 40, 1 << 40, 1), (0, 1, 8)])
def test_grouping_changes_nothing(monkeypatch, call_cost, tile, num_groups):
    """All decodes in one padded group, each length on its own, or one by one: the same rows come out."""
    monkeypatch.setattr(planning, "CALL_COST_BYTES", call_cost)
    monkeypatch.setattr(planning, "TILE_BYTES", tile)
    context_lens = [3, 90, 1, 17, 90, 5, 40, 16]
    got, wanted, _, cache, batch = step([1] * 8, context_lens, 4, 4, 2, 8)
    torch.testing.assert_close(got.double(), wanted, **TOLERANCE)
    groups = make_plan(batch, cache, 0).decodes
    assert len(groups) == num_groups  # by length: 23 blocks twice, 10, 5 with 4, 2, 1 twice
    assert sum(group.num_requests for group in groups) == 8


def test_windows_gather_only_their_blocks():
    _, _, _, cache, batch = step([1, 1], [100, 64], 4, 2, 1, 8)
    (group,) = make_plan(batch, cache, 8).decodes
    assert len(group.blocks) == 2 * 2  # 8 tokens end on a block edge here: two blocks of four each
    table = batch.block_tables
    assert group.blocks.tolist() == [*table[0, 23:25].tolist(), *table[1, 14:16].tolist()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_write_kv_puts_each_row_into_its_slot(dtype):
    *_, (k, v), cache, batch = step([1, 5], [9, 12], 4, 2, 2, 8, dtype=dtype)
    expected = LayerCache(cache.keys.clone(), cache.values.clone())
    write_kv_reference(k, v, expected, batch.slots)
    for got, wanted in ((cache.keys, expected.keys), (cache.values, expected.values)):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


def test_a_poisoned_neighbour_stays_alone():
    """One request's NaN keys reach neither the other requests of the batch nor the next owner of its blocks."""
    torch.manual_seed(0)
    tables, lens = [[0, 1], [2, 3]], [6, 7]
    cache = new_layer_cache(4, 4, 1, 8, torch.float32, torch.device("cpu"))
    prefill = attention_batch(lens, lens, tables, 4)
    k, v = torch.randn(13, 1, 8), torch.randn(13, 1, 8)
    k[:6] = v[:6] = torch.nan
    write_kv(k, v, cache, make_plan(prefill, cache, 0))
    decode = attention_batch([1, 1], [6, 7], tables, 4)
    got = attention(torch.randn(2, 2, 8), cache, make_plan(decode, cache, 0), 0.3)
    assert got[0].isnan().all() and got[1].isfinite().all()

    successor = attention_batch([1], [1], [[1]], 4)
    write_kv(torch.randn(1, 1, 8), torch.ones(1, 1, 8), cache, make_plan(successor, cache, 0))
    got = attention(torch.randn(1, 2, 8), cache, make_plan(successor, cache, 0), 0.3)
    torch.testing.assert_close(got, torch.ones(1, 2, 8))
