"""Benchmark shapes of ``fp8_gemm``: Llama-3.1-8B's layers, row and block scales; baselines: torch's e4m3 product, cuBLAS bf16."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.fp8_gemm.inputs import make
from octavo.kernels.matmul.shapes import MANY_ROWS, ProductShape, bf16_matmul, layers
from octavo.kernels.operation import Benchmark, Goal


def scaled_mm(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None) -> Tensor:
    """torch's own, with scales per row; it sums on the tensor cores as well."""
    found: Tensor = torch._scaled_mm(
        a, b.T, a_scale[:, None], b_scale[None, :], out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return found


def _benchmark(name: str, shape: ProductShape, blocks: bool) -> Benchmark:
    rows, columns, size = shape
    goals = [Goal("bf16 matmul", 1.4)] if rows >= MANY_ROWS else []
    return Benchmark(
        f"{name}, {'blocks' if blocks else 'rows'}",
        lambda generator, device: make(shape, blocks, None, generator, device),
        moved_bytes=rows * size + columns * size + 2 * rows * columns,
        operations=2 * rows * columns * size,
        limit="fp8",
        baselines={"bf16 matmul": bf16_matmul} | ({} if blocks else {"torch._scaled_mm": scaled_mm}),
        goals=tuple(goals if blocks else [*goals, Goal("torch._scaled_mm", 0.95)]),
    )


BENCHMARKS = tuple(_benchmark(*layer, blocks) for blocks in (False, True) for layer in layers())
