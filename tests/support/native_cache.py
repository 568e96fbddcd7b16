"""Test inputs for native attention: a paged KV cache with NaN where nothing was written, and the float64 reference."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass, field

import numpy as np

from octavo.kernels.native.operations import Operations
from octavo.kernels.native.structs import SUB_BLOCK, AttentionShape, KvLayer, KvShape, KvType

DTYPES = {KvType.F32: np.float32, KvType.BF16: np.uint16, KvType.I8: np.int8}


def bf16_to_float(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float_to_bf16(x: np.ndarray) -> np.ndarray:
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


@dataclass
class Cache:
    """One layer's cache and one request's block table over it; arrays as ``types.hpp`` describes them."""

    kind: KvType
    num_kv_heads: int
    head_dim: int
    block_size: int
    num_tokens: int
    seed: int = 0
    arrays: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        used = -(-self.num_tokens // self.block_size)
        self.num_blocks = used + 3
        rng = np.random.default_rng(self.seed)
        self.table = rng.permutation(self.num_blocks)[:used].astype(np.int32)
        subs = self.num_blocks * self.block_size // SUB_BLOCK
        for shape in ((self.head_dim, SUB_BLOCK), (SUB_BLOCK, self.head_dim)):
            array = np.empty((subs, self.num_kv_heads, *shape), DTYPES[self.kind])
            if self.kind is KvType.I8:
                array[:] = rng.integers(-128, 128, array.shape)
            else:
                array[:] = np.nan if self.kind is KvType.F32 else 0x7FC0
            self.arrays.append(array)
        self.arrays += [np.full((subs, self.num_kv_heads, SUB_BLOCK), np.nan, np.float32) for _ in range(2)]
        self.shape = KvShape(self.kind, self.num_blocks, self.block_size, self.num_kv_heads, self.head_dim)
        self.layer = KvLayer(*(array.ctypes.data for array in self.arrays))

    def write(self, ops: Operations, k: np.ndarray, v: np.ndarray) -> None:
        """Store ``k`` and ``v``, ``[num_tokens, num_kv_heads, head_dim]``, token by token, the heads in two parts."""
        for position in range(self.num_tokens):
            block, cut = int(self.table[position // self.block_size]), position % (self.num_kv_heads + 1)
            for first, last in ((0, cut), (cut, self.num_kv_heads)):
                pointers = (k[position, first:].ctypes.data, v[position, first:].ctypes.data)
                at = (block, position % self.block_size, first, last)
                ops.write_kv(c.byref(self.shape), c.byref(self.layer), *at, *pointers)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """The stored keys and values as numbers, ``[num_tokens, num_kv_heads, head_dim]`` in float64."""
        position = np.arange(self.num_tokens)
        sub = (
            self.table[position // self.block_size] * (self.block_size // SUB_BLOCK)
            + position % self.block_size // SUB_BLOCK
        )
        token = position % SUB_BLOCK
        k, v = self.arrays[0][sub, :, :, token], self.arrays[1][sub, :, token, :]
        if self.kind is KvType.BF16:
            k, v = bf16_to_float(k), bf16_to_float(v)
        if self.kind is KvType.I8:
            k = k * self.arrays[2][sub, :, token][..., None].astype(np.float64)
            v = v * self.arrays[3][sub, :, token][..., None].astype(np.float64)
        return k.astype(np.float64), v.astype(np.float64)


def attend(
    ops: Operations, shape: AttentionShape, cache: Cache, q: np.ndarray, first_position: int, num_rows: int
) -> np.ndarray:
    """Rows at ``first_position`` and after of ``q``, ``[positions, num_heads, head_dim]``; out and scratch poisoned."""
    out = np.full((num_rows, *q.shape[1:]), np.nan, np.float32)
    scratch = np.full(ops.attention_scratch(c.byref(shape), num_rows), np.nan, np.float32)
    stride, references = q.shape[1] * q.shape[2], (c.byref(shape), c.byref(cache.shape), c.byref(cache.layer))
    at = q[first_position:].ctypes.data
    for kv_head in range(shape.num_kv_heads):
        where = (cache.table.ctypes.data, first_position, num_rows, kv_head)
        ops.attention(*references, *where, at, stride, out.ctypes.data, stride, scratch.ctypes.data)
    return out


def reference(
    shape: AttentionShape, q: np.ndarray, k: np.ndarray, v: np.ndarray, first: int, num_rows: int
) -> np.ndarray:
    """The same from keys and values as numbers, in float64."""
    group = shape.num_heads // shape.num_kv_heads
    out = np.empty((num_rows, *q.shape[1:]))
    for row in range(num_rows):
        position = first + row
        seen = slice(max(0, position - shape.window + 1) if shape.window else 0, position + 1)
        for head in range(shape.num_heads):
            scores = shape.scale * (k[seen, head // group] @ q[position, head].astype(np.float64))
            if shape.soft_cap:
                scores = shape.soft_cap * np.tanh(scores / shape.soft_cap)
            weights = np.exp(scores - scores.max())
            out[row, head] = weights / weights.sum() @ v[seen, head // group]
    return out
