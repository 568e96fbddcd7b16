"""Benchmark shapes of ``int8_gemm``: Llama-3.1-8B's layers; baselines: torch's int8 product and scaling, cuBLAS bf16."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.int8_gemm.inputs import make
from octavo.kernels.matmul.shapes import MANY_ROWS, ProductShape, bf16_matmul, layers
from octavo.kernels.operation import Benchmark, Goal


def int_mm(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None) -> Tensor:
    """``torch._int_mm`` (more than 16 rows only), and the scales."""
    return (torch._int_mm(a, b.T) * (a_scale[:, None] * b_scale)).bfloat16()


def _benchmark(name: str, shape: ProductShape) -> Benchmark:
    rows, columns, size = shape
    return Benchmark(
        name,
        lambda generator, device: make(shape, None, generator, device),
        moved_bytes=rows * size + columns * size + 2 * rows * columns,
        operations=2 * rows * columns * size,
        limit="int8",
        baselines={"bf16 matmul": bf16_matmul, "torch._int_mm": int_mm},
        goals=(Goal("bf16 matmul", 1.4),) if rows >= MANY_ROWS else (),
    )


BENCHMARKS = tuple(_benchmark(*layer) for layer in layers())
