"""Benchmark shapes of ``int4_gemm``: Llama-3.1-8B's layers, 4-bit weights in groups of 128; baseline: cuBLAS bf16."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.int4_gemm.inputs import make
from octavo.kernels.matmul.shapes import MANY_ROWS, ProductShape, bf16_matmul, layers
from octavo.kernels.operation import Benchmark, Goal

GROUP = 128
FEW_ROWS = 16


def _bf16(x: Tensor, packed: Tensor, scale: Tensor, minimum: Tensor, group: int) -> Tensor:
    return bf16_matmul(x, packed.view(packed.shape[0], -1, 1).expand(-1, -1, 2).reshape(packed.shape[0], -1))


def _benchmark(name: str, shape: ProductShape) -> Benchmark:
    rows, columns, size = shape
    goals = (Goal("bf16 matmul", 2.8),) if rows <= FEW_ROWS else ()
    return Benchmark(
        name,
        lambda generator, device: make(shape, GROUP, (torch.bfloat16, torch.float16), generator, device),
        moved_bytes=2 * rows * size + columns * size // 2 + 4 * columns * size // GROUP + 2 * rows * columns,
        operations=2 * rows * columns * size,
        limit="copy" if rows <= 256 else "bf16",
        baselines={"bf16 matmul": _bf16},
        goals=(Goal("bf16 matmul", 0.9),) if rows >= MANY_ROWS else goals,
    )


BENCHMARKS = tuple(_benchmark(*layer) for layer in layers())
