"""Benchmark shapes of ``layer_norm_backward``: as ``layer_norm``; the baseline runs forward as well, it has to save tensors."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from octavo.kernels.layer_norm.bench import layer_norm
from octavo.kernels.rms_norm.bench import benchmarks, gradients


def _eager(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    inputs = {"x": x, "weight": weight, "bias": torch.zeros_like(weight)}
    return gradients(partial(layer_norm, eps=eps), inputs, (grad,))


BENCHMARKS = benchmarks(("grad", "x", "weight"), 3, _eager, reach=0.85)
