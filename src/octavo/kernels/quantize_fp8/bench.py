"""Benchmark shapes of ``quantize_fp8``: Llama-3.1-8B's activations, one scale per token or per group of 128 (DeepSeek-V3)."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.operation import Benchmark, Function, Goal
from octavo.kernels.quantize_fp8.inputs import make


def _eager(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    groups = x.float().view(*x.shape[:-1], -1, group or x.shape[-1])
    scale = groups.abs().amax(-1, keepdim=True) / 448
    return (groups / scale).flatten(-2).to(torch.float8_e4m3fn), scale


def _benchmark(rows: int, size: int, group: int, eager: Function) -> Benchmark:
    num_scales = rows * (size // group if group else 1)
    return Benchmark(
        f"{rows} x {size} by {group or 'row'}",
        lambda generator, device: make((rows, size), torch.bfloat16, group, generator, device),
        moved_bytes=3 * rows * size + 4 * num_scales,
        baselines={"torch eager": eager, "torch.compile": torch.compile(eager)},
        goals=(Goal("copy", 0.8), Goal("torch.compile", 1.0)) if rows * size >= 1 << 24 else (),
    )


def benchmarks(eager: Function) -> tuple[Benchmark, ...]:
    """``eager``: the same quantisation in torch, of ``x`` and ``group``."""
    return tuple(
        _benchmark(rows, size, group, eager) for rows in (16, 4096) for size in (4096, 14336) for group in (0, 128)
    )


BENCHMARKS = benchmarks(_eager)
