"""Benchmark shapes of ``rms_norm_backward``: as ``rms_norm``; the baseline runs forward as well, it has to save tensors."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from octavo.kernels.rms_norm.bench import benchmarks, gradients, rms_norm


def _eager(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    return gradients(partial(rms_norm, eps=eps), {"x": x, "weight": weight}, (grad,))


BENCHMARKS = benchmarks(("grad", "x", "weight"), 3, _eager, reach=0.85)
