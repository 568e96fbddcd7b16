"""Benchmark shapes of ``add_layer_norm``: as ``layer_norm``; two tensors are read and two written."""

from __future__ import annotations

from torch import Tensor

from octavo.kernels.layer_norm.bench import layer_norm
from octavo.kernels.rms_norm.bench import benchmarks


def _eager(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    summed = x + residual
    return layer_norm(summed, weight, bias, eps), summed


BENCHMARKS = benchmarks(("x", "residual", "weight", "bias"), 4, _eager)
