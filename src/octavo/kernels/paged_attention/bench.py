"""Benchmark shapes of ``paged_attention``: Llama-3.1-8B's and Gemma's heads, long decodes, prefill with and without prefix.

PyTorch's own attention knows no blocks: as a baseline it is given the same memory as if it were contiguous, so it does the
same work and is spared the gather (its numbers differ from ours, for our blocks are shuffled).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from octavo.kernels.operation import Benchmark, Function, Goal
from octavo.kernels.paged_attention.checks import FP8
from octavo.kernels.paged_attention.cpu import paged_attention

BF16_TFLOPS = 790  # of a large matrix product on an H200, random data


@dataclass(frozen=True, slots=True)
class Batch:
    """``requests`` of the same shape, in blocks of 16."""

    requests: int
    query_len: int
    context_len: int
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    fp8: bool = False
    window: int = 0

    def make(self, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
        """Shuffled blocks; the cache repeats 4,096 random tokens, for random numbers of whole caches take minutes."""
        per_request = -(-self.context_len // 16)
        num_blocks = self.requests * per_request
        order = torch.randperm(num_blocks, generator=generator).to(torch.int32)
        starts = torch.arange(self.requests + 1, dtype=torch.int32) * self.query_len
        q = torch.randn(self.requests * self.query_len, self.heads, self.head_dim, generator=generator)
        scales = {name: torch.ones(self.kv_heads, device=device) for name in ("key_scale", "value_scale") if self.fp8}
        return {
            "q": q.to(device, torch.bfloat16),
            "keys": self._cache(num_blocks, generator, device),
            "values": self._cache(num_blocks, generator, device),
            "query_starts": starts.to(device),
            "context_lens": torch.full((self.requests,), self.context_len, dtype=torch.int32, device=device),
            "block_tables": order.view(self.requests, per_request).to(device),
            "num_decodes": self.requests if self.query_len == 1 else 0,
            "max_context_len": self.context_len,
            "scale": self.head_dim**-0.5,
            "window": self.window,
            **scales,
        }

    def _cache(self, num_blocks: int, generator: torch.Generator, device: torch.device) -> Tensor:
        rows = torch.randn(256, 16, self.kv_heads, self.head_dim, generator=generator)
        some = rows.to(device, FP8 if self.fp8 else torch.bfloat16).view(torch.uint8)
        return some.repeat(-(-num_blocks // 256), 1, 1, 1)[:num_blocks].view(FP8 if self.fp8 else torch.bfloat16)

    def seen(self) -> int:
        """Pairs of a query row and a token that it attends to, of one head."""
        last = range(self.context_len - self.query_len + 1, self.context_len + 1)
        return self.requests * sum(min(tokens, self.window or tokens) for tokens in last)

    def moved_bytes(self) -> int:
        """Keys and values once, queries and outputs."""
        tokens = self.requests * min(
            self.context_len, self.window + self.query_len if self.window else self.context_len
        )
        rows = self.requests * self.query_len
        return (
            2 * tokens * self.kv_heads * self.head_dim * (1 if self.fp8 else 2) + 4 * rows * self.heads * self.head_dim
        )


def _contiguous(backend: SDPBackend, q: Tensor, keys: Tensor, values: Tensor, **more: Any) -> Tensor:
    """PyTorch's attention with one of its back ends; causal from the first token, or one row a request."""
    requests = more["context_lens"].shape[0]
    queries = q.view(requests, -1, *q.shape[1:]).transpose(1, 2)
    key_heads, value_heads = (x.view(requests, -1, *x.shape[2:]).transpose(1, 2) for x in (keys, values))
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(
            queries, key_heads, value_heads, is_causal=queries.shape[2] > 1, scale=more["scale"], enable_gqa=True
        )


SDPA: Mapping[str, Function] = {
    "sdpa flash": partial(_contiguous, SDPBackend.FLASH_ATTENTION),
    "sdpa cudnn": partial(_contiguous, SDPBackend.CUDNN_ATTENTION),
}


def _decode(batch: Batch, reach: float) -> Benchmark:
    comparable = not (batch.fp8 or batch.window)
    return Benchmark(
        f"decode {batch.requests} x {batch.context_len}{' fp8' * batch.fp8}{f' window {batch.window}' * bool(batch.window)}",
        batch.make,
        moved_bytes=batch.moved_bytes(),
        operations=4 * batch.seen() * batch.heads * batch.head_dim,
        baselines={"torch eager": paged_attention, **(SDPA if comparable else {})},
        goals=(Goal("copy", reach),) if reach else (),
    )


def _prefill(batch: Batch, goals: tuple[Goal, ...] = ()) -> Benchmark:
    plain = batch.query_len == batch.context_len and not batch.window
    return Benchmark(
        f"prefill {batch.requests} x {batch.query_len} of {batch.context_len}, head size {batch.head_dim}"
        f"{f', window {batch.window}' * bool(batch.window)}",
        batch.make,
        moved_bytes=batch.moved_bytes(),
        operations=4 * batch.seen() * batch.heads * batch.head_dim,
        limit="bf16",
        baselines={"torch eager": paged_attention, **(SDPA if plain else {})},
        goals=goals,
    )


BEST_SDPA = (Goal("sdpa flash", 0.75), Goal("sdpa cudnn", 0.75))

BENCHMARKS = (
    _decode(Batch(1, 1, 131072), reach=0.8),
    _decode(Batch(8, 1, 65536), reach=0.8),
    _decode(Batch(64, 1, 4096), reach=0.8),
    _decode(Batch(64, 1, 4096, fp8=True), reach=0.0),
    _decode(Batch(16, 1, 512), reach=0.0),
    _decode(Batch(16, 1, 32768, heads=16, head_dim=256, window=1024), reach=0.0),
    _prefill(Batch(1, 8192, 8192), (*BEST_SDPA, Goal("bf16", 450 / BF16_TFLOPS))),
    _prefill(Batch(4, 4096, 4096), (*BEST_SDPA, Goal("bf16", 450 / BF16_TFLOPS))),
    _prefill(Batch(2, 2048, 32768)),
    _prefill(Batch(1, 8192, 8192, heads=16, head_dim=256, window=1024)),
)
