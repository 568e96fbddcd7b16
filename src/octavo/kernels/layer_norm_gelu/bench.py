"""Benchmark shapes of ``layer_norm_gelu``: widths of real models at the row counts of prefill."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.layer_norm_gelu.inputs import make
from octavo.kernels.operation import Benchmark, Goal


def _eager(x: Tensor, weight: Tensor, bias: Tensor, eps: float, approximate: str) -> Tensor:
    return F.gelu(F.layer_norm(x, weight.shape, weight, bias, eps), approximate=approximate)


def _benchmark(rows: int, size: int) -> Benchmark:
    return Benchmark(
        f"{rows} x {size} bfloat16",
        lambda generator, device: make((rows, size), torch.bfloat16, "none", 0.0, generator, device),
        moved_bytes=2 * (2 * rows * size + 2 * size),
        baselines={"torch eager": _eager, "torch.compile": torch.compile(_eager)},
        goals=(Goal("torch eager", 1.8), Goal("torch.compile", 1.0), Goal("copy", 0.85)),
    )


BENCHMARKS = (_benchmark(32768, 1024), _benchmark(16384, 4096), _benchmark(8192, 8192))
