"""Benchmark shapes of ``group_gemm``: mixture-of-experts layers, random routing; baselines: a loop of cuBLAS, torch's own."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from octavo.kernels.group_gemm.inputs import make
from octavo.kernels.operation import Benchmark, Goal

# by name: experts, experts of a token, outputs, inputs
LAYERS = (
    ("Mixtral-8x7B up", 8, 2, 28672, 4096),
    ("Mixtral-8x7B down", 8, 2, 4096, 14336),
    ("Qwen3-30B-A3B up", 128, 8, 1536, 2048),
    ("Qwen3-30B-A3B down", 128, 8, 2048, 768),
)
TOKENS = (16, 256, 4096)


def loop(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """A product per expert that has rows; the offsets are known to the host, which spares the loop a wait."""
    out = torch.empty((a.shape[0], b.shape[1]), dtype=a.dtype, device=a.device)
    for expert, (begin, end) in enumerate(pairwise(_on_host(offsets))):
        if begin < end:
            torch.mm(a[begin:end], b[expert].T, out=out[begin:end])
    return out


@lru_cache(maxsize=1)
def _on_host(offsets: Tensor) -> list[int]:
    """Read at a benchmark's first call, which is not timed."""
    return [int(one) for one in offsets.tolist()]


def grouped_mm(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """torch's own."""
    found: Tensor = torch._grouped_mm(a, b.transpose(1, 2), offs=offsets[1:])
    return found


def _benchmark(name: str, experts: int, chosen: int, columns: int, size: int, tokens: int) -> Benchmark:
    rows = tokens * chosen
    active = experts * (1 - (1 - 1 / experts) ** rows)  # experts with rows, on average
    return Benchmark(
        f"{name}, {tokens} tokens",
        lambda generator, device: make((rows, columns, size), experts, torch.bfloat16, generator, device),
        moved_bytes=2 * int(rows * size + active * columns * size + rows * columns),
        operations=2 * rows * columns * size,
        limit="bf16" if rows >= 256 * experts else "copy",
        baselines={"loop of matmuls": loop, "torch._grouped_mm": grouped_mm},
        goals=(Goal("loop of matmuls", 1.4),),
    )


BENCHMARKS = tuple(_benchmark(*layer, tokens) for tokens in TOKENS for layer in LAYERS)
