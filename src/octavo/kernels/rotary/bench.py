"""Benchmark shapes of ``rotary``: the heads of Llama-3.1-8B (32 over 8, size 128) for decode and prefill."""

from __future__ import annotations

import torch

from octavo.kernels.operation import Benchmark, Goal
from octavo.kernels.rotary.cpu import rotary
from octavo.kernels.rotary.inputs import Shape

ROWS = (16, 4096, 32768)


def goals(rows: int) -> tuple[Goal, ...]:
    """Few rows are a matter of launches, not of bandwidth."""
    return (Goal("copy", 0.85), Goal("torch.compile", 1.0)) if rows > 1000 else (Goal("torch.compile", 1.0),)


def shape(rows: int) -> Shape:
    """Llama-3.1-8B's heads: 32 queries and 8 keys of 128, all dimensions rotated."""
    return Shape(rows, 32, 8, 128, 128, torch.bfloat16)


BENCHMARKS = tuple(
    Benchmark(
        f"{rows} rows of 32 heads of 128",
        shape(rows).make,
        moved_bytes=rows * (2 * 2 * 32 * 128 + 4 * 128),
        baselines={"torch eager": rotary, "torch.compile": torch.compile(rotary)},
        goals=goals(rows),
    )
    for rows in ROWS
)
