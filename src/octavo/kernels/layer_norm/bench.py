"""Benchmark shapes of ``layer_norm``: the shapes of ``rms_norm``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.rms_norm.bench import benchmarks


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The baseline: torch's own; ``x``: ``[..., N]``, ``weight`` and ``bias``: ``[N]``."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


BENCHMARKS = benchmarks(("x", "weight", "bias"), 2, layer_norm)
