"""Benchmark shapes of ``rms_norm``: widths of real models at the row counts of decode and of prefill."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from octavo.kernels.operation import Benchmark, Function, Goal
from octavo.kernels.rms_norm.inputs import Shape

SIZES = ((16, 4096), (4096, 4096), (32768, 8192))


def benchmarks(names: tuple[str, ...], num_moved: int, eager: Function, reach: float = 0.9) -> tuple[Benchmark, ...]:
    """``num_moved``: how many tensors of the rows' size are read and written; ``eager``: torch's operations."""
    return tuple(
        Benchmark(
            f"{rows} x {size} bfloat16",
            Shape((rows, size), torch.bfloat16).inputs(*names),
            moved_bytes=2 * (num_moved * rows * size + size),
            baselines={"torch eager": eager, "torch.compile": torch.compile(eager)},
            goals=(Goal("copy", reach), Goal("torch.compile", 1.0)) if rows > 1000 else (Goal("torch.compile", 1.0),),
        )
        for rows, size in SIZES
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The baseline: torch's own; ``x``: ``[..., N]``, ``weight``: ``[N]``."""
    return F.rms_norm(x, weight.shape, weight, eps)


def gradients(function: Function, inputs: Mapping[str, Tensor], grads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """By autograd, forward included: what training without this operation does."""
    leaves = {name: one.detach().requires_grad_() for name, one in inputs.items()}
    result = function(**leaves)
    return torch.autograd.grad(result, tuple(leaves.values()), grads)


BENCHMARKS = benchmarks(("x", "weight"), 2, rms_norm)
