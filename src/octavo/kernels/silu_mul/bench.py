"""Benchmark shapes of ``silu_mul``: the MLPs of Llama-3.1-8B and Gemma at the row counts of decode and of prefill."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.operation import Benchmark, Function, Goal
from octavo.kernels.silu_mul.cpu import silu_mul
from octavo.kernels.silu_mul.inputs import Shape

SIZES = ((16, 14336, "silu"), (4096, 14336, "silu"), (16384, 14336, "silu"), (8192, 10752, "gelu_tanh"))


def benchmarks(num_moved: int, eager: Function, backward: bool) -> tuple[Benchmark, ...]:
    """``num_moved``: how many tensors of the output's size are read and written."""
    made = []
    for rows, size, act in SIZES:
        shape = Shape((rows, 2 * size), torch.bfloat16, act, 1.0)
        goals = (Goal("copy", 0.9), Goal("torch.compile", 1.0)) if rows > 1000 else (Goal("torch.compile", 1.0),)
        made.append(
            Benchmark(
                f"{rows} x {size} {act} bfloat16",
                shape.make_backward if backward else shape.make,
                moved_bytes=2 * num_moved * rows * size,
                baselines={"torch eager": eager, "torch.compile": torch.compile(eager)},
                goals=goals,
            )
        )
    return tuple(made)


def eager(x: Tensor, act: str) -> Tensor:
    """The baseline: torch's own operations, one kernel each; ``x``: ``[..., 2 I]``."""
    return silu_mul(x, act)


BENCHMARKS = benchmarks(3, eager, backward=False)
