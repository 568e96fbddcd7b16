"""Benchmark shapes of ``silu_mul_backward``: as ``silu_mul``; the baseline runs forward as well, it has to save tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.silu_mul.bench import benchmarks, eager


def _eager(grad: Tensor, x: Tensor, act: str) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(eager(leaf, act), leaf, grad)[0]


BENCHMARKS = benchmarks(5, _eager, backward=True)
