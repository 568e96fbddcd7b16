"""Benchmark shapes of ``matmul``: square, and Llama-3.1-8B's layers at the row counts of decode and prefill."""

from __future__ import annotations

import torch

from octavo.kernels.matmul.inputs import make
from octavo.kernels.matmul.shapes import MANY_ROWS, layers
from octavo.kernels.operation import Benchmark, Goal


def _benchmark(shape: tuple[int, int, int], dtype: torch.dtype, goal: float) -> Benchmark:
    rows, inner, columns = shape
    limit = "fp32" if dtype == torch.float32 else "bf16"
    return Benchmark(
        f"{rows} x {inner} x {columns} {str(dtype)[6:]}",
        lambda generator, device: make(shape, dtype, generator, device),
        moved_bytes=dtype.itemsize * (rows * inner + inner * columns + rows * columns),
        operations=2 * rows * inner * columns,
        limit=limit,
        baselines={"cuBLAS": lambda a, b: torch.mm(a, b)},
        goals=(Goal("cuBLAS", goal),),
    )


BENCHMARKS = (
    _benchmark((4096, 4096, 4096), torch.float32, 0.7),
    _benchmark((8192, 8192, 8192), torch.bfloat16, 0.85),
    *(
        _benchmark((rows, inputs, outputs), torch.bfloat16, 0.85 if rows >= MANY_ROWS else 0.75)
        for _, (rows, outputs, inputs) in layers()
    ),
)
