"""Benchmark shapes of ``quantize_int8``: the shapes of ``quantize_fp8``, against the same steps in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.quantize_fp8.bench import benchmarks


def _eager(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    groups = x.float().view(*x.shape[:-1], -1, group or x.shape[-1])
    scale = groups.abs().amax(-1, keepdim=True) / 127
    return (groups / scale).round_().flatten(-2).to(torch.int8), scale


BENCHMARKS = benchmarks(_eager)
