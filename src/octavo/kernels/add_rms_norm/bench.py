"""Benchmark shapes of ``add_rms_norm``: as ``rms_norm``; two tensors are read and two written."""

from __future__ import annotations

from torch import Tensor

from octavo.kernels.rms_norm.bench import benchmarks, rms_norm


def _eager(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    summed = x + residual
    return rms_norm(summed, weight, eps), summed


BENCHMARKS = benchmarks(("x", "residual", "weight"), 4, _eager)
