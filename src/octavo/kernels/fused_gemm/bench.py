"""Benchmark shapes of ``fused_gemm``: the first half of Llama-3.1-8B's MLP, long rows with short K included."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.fused_gemm.cpu import fused_gemm
from octavo.kernels.fused_gemm.inputs import make
from octavo.kernels.operation import Benchmark, Goal


def _product_alone(a: Tensor, b: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return torch.mm(a, b)


def _benchmark(shape: tuple[int, int, int], activation: str) -> Benchmark:
    rows, inner, columns = shape
    return Benchmark(
        f"{rows} x {inner} x {columns} bfloat16 bias {activation}",
        lambda generator, device: make(shape, torch.bfloat16, True, activation, generator, device),
        moved_bytes=2 * (rows * inner + inner * columns + rows * columns + columns),
        operations=2 * rows * inner * columns,
        limit="bf16",
        baselines={
            "torch eager": fused_gemm,
            "torch.compile": torch.compile(fused_gemm),
            "cuBLAS, product alone": _product_alone,
        },
        goals=(Goal("torch eager", 1.0), Goal("cuBLAS, product alone", 0.75)),
    )


BENCHMARKS = (
    _benchmark((4096, 4096, 14336), "silu"),
    _benchmark((8192, 1024, 8192), "gelu"),
    _benchmark((256, 4096, 14336), "gelu"),
)
