"""Benchmark shapes of ``reduce``: all elements to one number, long rows, short rows."""

from __future__ import annotations

import torch

from octavo.kernels.operation import Benchmark, Goal
from octavo.kernels.reduce.cub import cub_sum
from octavo.kernels.reduce.inputs import make


def _benchmark(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Benchmark:
    def eager(x: torch.Tensor, last: bool) -> torch.Tensor:
        return x.sum(-1, dtype=torch.float32) if last else x.sum(dtype=torch.float32)

    size = torch.Size(shape)
    with_cub = torch.cuda.is_available() and not last
    return Benchmark(
        f"{' x '.join(map(str, shape))} {str(dtype)[6:]}{' rows' if last else ''}",
        lambda generator, device: make(shape, dtype, last, 0, generator, device),
        moved_bytes=size.numel() * dtype.itemsize + 4 * (size[:-1].numel() if last else 1),
        baselines={"torch eager": eager, "torch.compile": torch.compile(eager)}
        | ({"CUB": cub_sum} if with_cub else {}),
        goals=(Goal("copy", 0.95), Goal("torch eager", 0.95), *((Goal("CUB", 0.95),) if with_cub else ())),
    )


BENCHMARKS = (
    _benchmark((1 << 28,), torch.float32, False),
    _benchmark((1 << 29,), torch.bfloat16, False),
    _benchmark((16384, 16384), torch.bfloat16, True),
    _benchmark((1 << 21, 128), torch.bfloat16, True),
)
