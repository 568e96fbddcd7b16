"""Native attention against float64: every cache type, odd lengths, windows, soft caps, groups; same bits in any batch."""

from __future__ import annotations

import ctypes as c

import numpy as np
import pytest

from octavo.kernels.native.operations import Operations, operations
from octavo.kernels.native.structs import AttentionShape, KvType
from support.native_cache import Cache, attend, float_to_bf16, reference
from support.native_library import isas, needs_native

pytestmark = needs_native
CHUNK, EXTRA = 128, 8  # as in types.hpp
TOLERANCE = 3e-6  # of the largest value: the cache's own rounding is in the reference


@pytest.fixture(params=isas())
def ops(request: pytest.FixtureRequest) -> Operations:
    return operations(request.param)


def filled(
    ops: Operations, kind: KvType, shape: AttentionShape, num_tokens: int, block_size: int = 16, seed: int = 0
) -> tuple[Cache, np.ndarray]:
    rng = np.random.default_rng(seed)
    cache = Cache(kind, shape.num_kv_heads, shape.head_dim, block_size, num_tokens, seed)
    k, v = rng.standard_normal((2, num_tokens, shape.num_kv_heads, shape.head_dim)).astype(np.float32)
    cache.write(ops, k, v)
    q = rng.standard_normal((num_tokens, shape.num_heads, shape.head_dim)).astype(np.float32)
    return cache, q


def shape_of(group: int = 3, kv_heads: int = 2, head_dim: int = 64, window: int = 0, cap: float = 0) -> AttentionShape:
    return AttentionShape(group * kv_heads, kv_heads, head_dim, window, head_dim**-0.5 * 1.7, cap)


def check(ops: Operations, shape: AttentionShape, cache: Cache, q: np.ndarray, first: int, num_rows: int) -> None:
    k, v = cache.read()
    got = attend(ops, shape, cache, q, first, num_rows)
    expected = reference(shape, q, k, v, first, num_rows)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * np.abs(v).max())


@pytest.mark.parametrize("kind", KvType)
@pytest.mark.parametrize("block_size", (16, 32, 48))
def test_write_kv(ops: Operations, kind: KvType, block_size: int) -> None:
    rng = np.random.default_rng(5)
    k, v = (rng.standard_normal((2, 53, 3, 24)) * 10.0 ** rng.integers(-20, 20, (53, 3, 1))).astype(np.float32)
    k[7, 1] = 0
    cache = Cache(kind, 3, 24, block_size, 53)
    untouched = [np.count_nonzero(array == array) for array in cache.arrays]
    cache.write(ops, k, v)
    for got, x in zip(cache.read(), (k, v), strict=True):
        if kind is KvType.F32:
            assert (got == x).all()
        elif kind is KvType.BF16:
            assert (float_to_bf16(got.astype(np.float32)) == float_to_bf16(x)).all()
        else:
            step = np.abs(x).max(-1, keepdims=True) / 127
            assert (np.abs(got - x) <= step * 0.5001).all()
            assert (np.abs(got).max(-1) >= np.abs(x).max(-1) * 0.999999).all()
    if kind is KvType.F32:
        assert [np.count_nonzero(array == array) for array in cache.arrays[:2]] == [
            n + 53 * 3 * 24 for n in untouched[:2]
        ]


def test_bf16_rounds_to_nearest_even(ops: Operations) -> None:
    bits = np.arange(0x3F80_0000, 0x3F84_0000, 0x400, dtype=np.uint32)  # every rounding case over four steps
    x = np.concatenate([bits.view(np.float32), -bits.view(np.float32), [np.inf, -np.inf, 3.4e38, 1e-45, 0, -0.0, 1, 1]])
    x = x.astype(np.float32).reshape(1, 1, -1)
    cache = Cache(KvType.BF16, 1, x.shape[-1], 16, 1)
    cache.write(ops, x, x)
    stored = cache.arrays[0][cache.table[0], 0, :, 0]
    assert (stored == float_to_bf16(x.reshape(-1))).all()
    nan = np.full((1, 1, 8), np.nan, np.float32)
    nan.view(np.uint32)[:] |= 0x7FFF  # must not round up to infinity or wrap to zero
    cache = Cache(KvType.BF16, 1, 8, 16, 1)
    cache.arrays[0][:] = 0
    cache.write(ops, nan, nan)
    assert np.isnan((cache.arrays[0][cache.table[0], 0, :, 0].astype(np.uint32) << 16).view(np.float32)).all()


@pytest.mark.parametrize("kind", KvType)
def test_values_that_are_not_finite_stay_so(ops: Operations, kind: KvType) -> None:
    for bad in (np.nan, np.inf):
        x = np.ones((1, 1, 16), np.float32)
        x[0, 0, 3] = bad
        cache = Cache(kind, 1, 16, 16, 1)
        cache.write(ops, x, x)
        assert all(not np.isfinite(got).all() for got in cache.read())


@pytest.mark.parametrize("kind", KvType)
@pytest.mark.parametrize("context", (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 127, 128, 129, 200, 255, 256, 257, 300))
def test_decode(ops: Operations, kind: KvType, context: int) -> None:
    shape = shape_of()
    cache, q = filled(ops, kind, shape, context, (16, 32, 48)[context % 3], context)
    check(ops, shape, cache, q, context - 1, 1)


@pytest.mark.parametrize("kind", KvType)
@pytest.mark.parametrize("group", (1, 2, 3, 4, 5, 7, 8, 9, 20))
def test_groups_of_query_heads(ops: Operations, kind: KvType, group: int) -> None:
    shape = shape_of(group, kv_heads=2, head_dim=16)
    cache, q = filled(ops, kind, shape, 150, 32, group)
    check(ops, shape, cache, q, 149, 1)
    check(ops, shape, cache, q, 109, 41)


@pytest.mark.parametrize("kind", KvType)
@pytest.mark.parametrize("head_dim", (8, 16, 24, 32, 40, 80, 96, 128, 256))
def test_head_dims(ops: Operations, kind: KvType, head_dim: int) -> None:
    shape = shape_of(2, 1, head_dim)
    cache, q = filled(ops, kind, shape, 140, 16, head_dim)
    check(ops, shape, cache, q, 137, 3)
    check(ops, shape, cache, q, 100, 40)


@pytest.mark.parametrize("kind", KvType)
@pytest.mark.parametrize("window", (1, 2, 15, 16, 17, 100, 128, 129, 250, 1000))
def test_windows(ops: Operations, kind: KvType, window: int) -> None:
    shape = shape_of(window=window, kv_heads=1)
    cache, q = filled(ops, kind, shape, 290, 32, window)
    check(ops, shape, cache, q, 289, 1)
    check(ops, shape, cache, q, 230, 60)


@pytest.mark.parametrize("cap", (0.1, 5.0, 50.0))
def test_soft_cap(ops: Operations, cap: float) -> None:
    shape = shape_of(cap=cap)
    cache, q = filled(ops, KvType.F32, shape, 140)
    check(ops, shape, cache, q, 120, 20)


def test_far_scores(ops: Operations) -> None:
    """Scores of hundreds, their maximum in any chunk: nothing overflows and what underflows is zero."""
    shape = AttentionShape(4, 2, 32, 0, 20.0, 0.0)
    cache, q = filled(ops, KvType.F32, shape, 400, 16, 3)
    check(ops, shape, cache, q, 390, 10)


@pytest.mark.parametrize("kind", KvType)
@pytest.mark.parametrize(
    ("window", "cap", "group", "head_dim"), ((0, 0, 3, 64), (70, 0, 4, 40), (0, 30, 1, 32), (200, 5, 8, 16))
)
def test_a_row_has_the_same_bits_in_any_batch(
    ops: Operations, kind: KvType, window: int, cap: float, group: int, head_dim: int
) -> None:
    shape = shape_of(group, 2, head_dim, window, cap)
    cache, q = filled(ops, kind, shape, 333, 32, 11)
    whole = attend(ops, shape, cache, q, 0, 333)
    rng = np.random.default_rng(12)
    for first in (0, 127, 128, 256, 332, *rng.integers(0, 333, 12)):
        for num_rows in {1, 2, min(60, 333 - first)}:
            if first + num_rows <= 333:
                assert (attend(ops, shape, cache, q, first, num_rows) == whole[first : first + num_rows]).all()


@pytest.mark.parametrize("kind", KvType)
def test_blocks_may_lie_anywhere(ops: Operations, kind: KvType) -> None:
    """Another block size and another table: the same bits."""
    shape, results = shape_of(), []
    for block_size in (16, 32, 48, 256):
        cache, q = filled(ops, kind, shape, 210, block_size, 4)
        results.append(attend(ops, shape, cache, q, 150, 60))
    assert all((result == results[0]).all() for result in results)


def split(ops: Operations, shape: AttentionShape, cache: Cache, q: np.ndarray, first: int, num_rows: int) -> np.ndarray:
    """Attention by chunks, the last one first, and a merge."""
    start = max(0, first - shape.window + 1) // CHUNK if shape.window else 0
    num_chunks, group = (first + num_rows - 1) // CHUNK + 1 - start, shape.num_heads // shape.num_kv_heads
    partials = np.full((num_chunks, num_rows * group, shape.head_dim + EXTRA), np.nan, np.float32)
    scratch = np.full(ops.attention_scratch(c.byref(shape), num_rows), np.nan, np.float32)
    out, stride = np.full((num_rows, *q.shape[1:]), np.nan, np.float32), q.shape[1] * q.shape[2]
    references = (c.byref(shape), c.byref(cache.shape), c.byref(cache.layer), cache.table.ctypes.data)
    for kv_head in range(shape.num_kv_heads):
        for chunk in reversed(range(num_chunks)):
            to = (partials[chunk].ctypes.data, scratch.ctypes.data)
            where = (first, num_rows, kv_head, start + chunk)
            ops.attention_chunk(*references, *where, q[first:].ctypes.data, stride, *to)
        ops.attention_merge(
            c.byref(shape), num_chunks, num_rows, kv_head, partials.ctypes.data, out.ctypes.data, stride
        )
    return out


@pytest.mark.parametrize("kind", KvType)
@pytest.mark.parametrize(("window", "cap"), ((0, 0), (150, 0), (20, 9)))
def test_chunks_and_a_merge_are_attention(ops: Operations, kind: KvType, window: int, cap: float) -> None:
    shape = shape_of(window=window, cap=cap)
    cache, q = filled(ops, kind, shape, 520, 16, 8)
    for first, num_rows in ((519, 1), (383, 1), (384, 1), (500, 4), (200, 150), (0, 5)):
        assert (split(ops, shape, cache, q, first, num_rows) == attend(ops, shape, cache, q, first, num_rows)).all()
