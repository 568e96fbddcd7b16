"""Widths of real models at the row counts of decode and of prefill."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from octavo.kernels.operation import Benchmark, Goal
from octavo.kernels.rms_norm.cases import _make


def _benchmark(rows: int, size: int) -> Benchmark:
    def eager(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return F.rms_norm(x, weight.shape, weight, eps)

    return Benchmark(
        f"{rows} x {size} bfloat16",
        lambda generator, device: _make((rows, size), torch.bfloat16, False, 1.0, generator, device),
        moved_bytes=2 * (2 * rows * size + size),
        baselines={"torch eager": eager, "torch.compile": torch.compile(eager)},
        goals=(Goal("copy", 0.9), Goal("torch.compile", 1.0)),
    )


BENCHMARKS = (_benchmark(16, 4096), _benchmark(4096, 4096), _benchmark(32768, 8192))
