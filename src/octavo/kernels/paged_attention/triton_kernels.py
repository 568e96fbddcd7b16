"""Triton kernels of paged attention: prefill, split-KV decode and merge.

The query heads that share a key head stand beside each other in a tile's rows, so that keys and values are read once for all of
them: row ``m`` of a tile is head ``m % GROUP`` of position ``m // GROUP``. Softmax runs online in base 2 (Dao, 2023).
"""

from __future__ import annotations

import triton
import triton.language as tl

from octavo.kernels.gpu.triton import dot, from_e4m3

LOG2_E = tl.constexpr(1.4426950408889634)
MERGE = tl.constexpr(16)  # splits merged at a time


@triton.jit
def _load(cache, table, tokens, end, d, num_blocks, head, kv_heads,
          MASKED: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, FP8_CACHE: tl.constexpr,
          DEBUG: tl.constexpr):  # fmt: skip
    """Rows of keys or values, ``[BLOCK_N, BLOCK_D]``, or transposed: as ``tokens`` and ``d`` spread when added."""
    inside = d < HEAD_DIM
    if MASKED:
        inside = inside & (tokens < end)
        block = tl.load(table + tokens // BLOCK_SIZE, mask=tokens < end, other=0)
    else:
        block = tl.load(table + tokens // BLOCK_SIZE)
    if DEBUG:
        exists = (block >= 0) & (block < num_blocks)
        block = tl.where(exists, block, 0)
    at = ((block.to(tl.int64) * BLOCK_SIZE + tokens % BLOCK_SIZE) * kv_heads + head) * HEAD_DIM + d
    if MASKED or d.shape[0] * d.shape[1] != HEAD_DIM:
        values = tl.load(cache + at, mask=inside, other=0)
    else:
        values = tl.load(cache + at)
    if FP8_CACHE != 0:
        values = from_e4m3(values, NATIVE=FP8_CACHE == 2)
    if DEBUG:
        values = tl.where(exists, values, float("nan"))
    return values


@triton.jit
def _beside_e4m3(rows):
    """Queries for products with 8-bit floats, which float16 holds exactly; bfloat16 saturates at 65504."""
    values = rows
    if rows.dtype == tl.bfloat16:
        values = tl.clamp(rows.to(tl.float32), -65504.0, 65504.0, propagate_nan=tl.PropagateNan.ALL).to(tl.float16)
    return values


@triton.jit
def _capped(scores, soft_cap):
    """Base-2 logits from ``scores`` over the cap: tanh(y) = 1 - 2 / (1 + exp(2 y))."""
    return (soft_cap * LOG2_E) * (1.0 - 2.0 / (1.0 + tl.exp2(scores * (2.0 * LOG2_E))))


@triton.jit
def _attend(q, acc, top, total, begin, stop, end, positions, keys, values, table, num_blocks, head, kv_heads,
            scale, soft_cap, window,
            MASKED: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr, HEAD_DIM: tl.constexpr,
            BLOCK_D: tl.constexpr, BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr, FP8_CACHE: tl.constexpr,
            DEBUG: tl.constexpr):  # fmt: skip
    """Tokens ``begin`` to ``stop`` for every row, online; ``end``: no token from here on is read.

    ``scale`` contains log2(e) unless ``CAPPED``, where it is over the cap. Where nothing forbids, logits are scaled only in the
    exponent, by the same instruction that subtracts the maximum; a scale of 8-bit keys may be 0, and 0 times -inf is NaN.
    """
    LATE: tl.constexpr = not CAPPED and FP8_CACHE == 0
    n, d = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    for start in range(begin, stop, BLOCK_N):
        tokens = start + n
        k = _load(keys, table, tokens[None, :], end, d[:, None], num_blocks, head, kv_heads,
                  MASKED, HEAD_DIM, BLOCK_SIZE, FP8_CACHE, DEBUG).to(q.dtype)  # fmt: skip
        scores = dot(q, k, tl.zeros([q.shape[0], BLOCK_N], tl.float32))
        if not LATE:
            scores *= scale
        if CAPPED:
            scores = _capped(scores, soft_cap)
        if MASKED:
            seen = (tokens[None, :] <= positions) & (tokens[None, :] < end)
            if WINDOWED:
                seen = seen & (tokens[None, :] > positions - window)
            scores = tl.where(seen, scores, -float("inf"))
        highest = tl.max(scores, axis=1)
        higher = tl.maximum(top, highest * scale if LATE else highest)
        finite = tl.where(higher == -float("inf"), 0.0, higher)  # a row that has seen nothing yet
        weights = tl.exp2((scores * scale if LATE else scores) - finite[:, None])
        shrink = tl.exp2(top - finite)
        total = total * shrink + tl.sum(weights, axis=1)
        v = _load(values, table, tokens[:, None], end, d[None, :], num_blocks, head, kv_heads,
                  MASKED, HEAD_DIM, BLOCK_SIZE, FP8_CACHE, DEBUG).to(q.dtype)  # fmt: skip
        acc = dot(weights.to(v.dtype), v, acc * shrink[:, None])
        top = higher
    return acc, top, total


@triton.jit
def prefill(q, keys, values, out, query_starts, context_lens, block_tables, key_scale, value_scale,
             num_requests, first_request, table_stride, num_blocks, kv_heads, scale, soft_cap, window,
             GROUP: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr, HEAD_DIM: tl.constexpr,
             BLOCK_D: tl.constexpr, BLOCK_SIZE: tl.constexpr, FP8_CACHE: tl.constexpr, DEBUG: tl.constexpr,
             REQUESTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """A tile of one request's query rows for one key head. Late tiles, which see most, come first."""
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    tile, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    number = tl.arange(0, REQUESTS)
    known = number < num_requests - first_request
    starts = tl.load(query_starts + first_request + number, mask=known, other=0) - first_request
    # Request i's tiles begin at number starts[i] // BLOCK_Q + i: room enough for each, found without the lengths on the host.
    request = tl.sum((known & (starts // BLOCK_Q + number <= tile)).to(tl.int32), axis=0) - 1
    request_start = tl.load(query_starts + first_request + request)
    first = (tile - ((request_start - first_request) // BLOCK_Q + request)) * BLOCK_Q
    request += first_request
    query_len = tl.load(query_starts + request + 1) - request_start
    if first >= query_len:
        return
    context = tl.load(context_lens + request)
    m, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    query = first + m // GROUP
    at = ((request_start + query).to(tl.int64) * kv_heads + head)[:, None] * GROUP * HEAD_DIM
    at += (m % GROUP)[:, None] * HEAD_DIM + d[None, :]
    inside = ((m < BLOCK_Q * GROUP) & (query < query_len))[:, None] & (d < HEAD_DIM)[None, :]
    rows = tl.load(q + at, mask=inside, other=0.0)
    if FP8_CACHE != 0:
        rows = _beside_e4m3(rows)
        scale *= tl.load(key_scale + head)
    lowest = context - query_len + first  # positions of the tile's first and last row
    highest = tl.minimum(lowest + BLOCK_Q, context) - 1
    positions = tl.minimum(context - query_len + query, highest)[:, None]
    factor = scale / soft_cap if CAPPED else scale * LOG2_E
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    top = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    end, begin, plain = highest + 1, 0, 0
    table = block_tables + request.to(tl.int64) * table_stride
    if WINDOWED:
        begin = tl.maximum(0, lowest - window + 1) // BLOCK_N * BLOCK_N
        plain = tl.minimum(tl.cdiv(tl.maximum(0, highest - window + 1), BLOCK_N) * BLOCK_N, end)
        acc, top, total = _attend(
            rows, acc, top, total, begin, plain, end, positions, keys, values, table, num_blocks, head, kv_heads,
            factor, soft_cap, window, True, True, CAPPED, HEAD_DIM, BLOCK_D, BLOCK_SIZE, BLOCK_N, FP8_CACHE, DEBUG,
        )  # fmt: skip
    diagonal = tl.maximum(plain, (lowest + 1) // BLOCK_N * BLOCK_N)
    acc, top, total = _attend(
        rows, acc, top, total, plain, diagonal, end, positions, keys, values, table, num_blocks, head, kv_heads,
        factor, soft_cap, window, False, False, CAPPED, HEAD_DIM, BLOCK_D, BLOCK_SIZE, BLOCK_N, FP8_CACHE, DEBUG,
    )  # fmt: skip
    acc, top, total = _attend(
        rows, acc, top, total, diagonal, end, end, positions, keys, values, table, num_blocks, head, kv_heads,
        factor, soft_cap, window, True, WINDOWED, CAPPED, HEAD_DIM, BLOCK_D, BLOCK_SIZE, BLOCK_N, FP8_CACHE, DEBUG,
    )  # fmt: skip
    acc = acc / total[:, None]
    if FP8_CACHE != 0:
        acc *= tl.load(value_scale + head)
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=inside)


@triton.jit
def decode(q, keys, values, out, tops, context_lens, block_tables, key_scale, value_scale,
            table_stride, num_blocks, kv_heads, split_size, scale, soft_cap, window,
            GROUP: tl.constexpr, WINDOWED: tl.constexpr, CAPPED: tl.constexpr, HEAD_DIM: tl.constexpr,
            BLOCK_D: tl.constexpr, BLOCK_SIZE: tl.constexpr, FP8_CACHE: tl.constexpr, DEBUG: tl.constexpr,
            BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """One split of a request's context for one key head; all of it, straight to ``out``, if ``tops`` is None."""
    request, head, number = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    context = tl.load(context_lens + request)
    begin = number * split_size
    if WINDOWED:
        begin += tl.maximum(0, context - window)
    if tops is not None:  # noqa: SIM102
        if begin >= context:
            return
    stop = tl.minimum(begin + split_size, context)
    m, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    row = (request.to(tl.int64) * kv_heads + head) * GROUP + m
    inside = (m < GROUP)[:, None] & (d < HEAD_DIM)[None, :]
    rows = tl.load(q + row[:, None] * HEAD_DIM + d[None, :], mask=inside, other=0.0)
    if FP8_CACHE != 0:
        rows = _beside_e4m3(rows)
        scale *= tl.load(key_scale + head)
    factor = scale / soft_cap if CAPPED else scale * LOG2_E
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    top = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    table = block_tables + request.to(tl.int64) * table_stride
    acc, top, total = _attend(
        rows, acc, top, total, begin, stop, stop, context, keys, values, table, num_blocks, head, kv_heads,
        factor, soft_cap, window, True, False, CAPPED, HEAD_DIM, BLOCK_D, BLOCK_SIZE, BLOCK_N, FP8_CACHE, DEBUG,
    )  # fmt: skip
    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]  # a context of 0 gives zeros
    if FP8_CACHE != 0:
        acc *= tl.load(value_scale + head)
    if tops is not None:
        row = row * tl.num_programs(2) + number
        tl.store(tops + row, top + tl.log2(total), mask=m < GROUP)
    tl.store(out + row[:, None] * HEAD_DIM + d[None, :], acc.to(out.dtype.element_ty), mask=inside)


@triton.jit
def merge(parts, tops, out, context_lens, num_splits, split_size, window, heads,
           WINDOWED: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """A head's splits, weighted by ``2 ** tops`` (their sums of exponentials), always in the same order."""
    request, head = tl.program_id(0), tl.program_id(1)
    context = tl.load(context_lens + request)
    seen = tl.minimum(context, window) if WINDOWED else context
    used = tl.cdiv(seen, split_size)
    at, d = (request.to(tl.int64) * heads + head) * num_splits, tl.arange(0, BLOCK_D)
    acc = tl.zeros([BLOCK_D], tl.float32)
    top, total = -float("inf"), 0.0
    for start in range(0, used, MERGE):
        number = start + tl.arange(0, MERGE)
        logs = tl.load(tops + at + number, mask=number < used, other=-float("inf"))
        inside = (number < used)[:, None] & (d < HEAD_DIM)[None, :]
        rows = tl.load(parts + (at + number)[:, None] * HEAD_DIM + d[None, :], mask=inside, other=0.0)
        higher = tl.maximum(top, tl.max(logs, axis=0))
        weights, shrink = tl.exp2(logs - higher), tl.exp2(top - higher)
        acc = acc * shrink + tl.sum(weights[:, None] * rows, axis=0)
        total = total * shrink + tl.sum(weights, axis=0)
        top = higher
    result = (acc / tl.where(used > 0, total, 1.0)).to(out.dtype.element_ty)
    tl.store(out + (request.to(tl.int64) * heads + head) * HEAD_DIM + d, result, mask=d < HEAD_DIM)
