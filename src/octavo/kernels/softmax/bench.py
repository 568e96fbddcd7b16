"""Benchmark shapes of ``softmax``: attention scores, router scores of a mixture of experts, logits of a large vocabulary."""

from __future__ import annotations

import torch

from octavo.kernels.operation import Benchmark, Goal


def _eager(x: torch.Tensor) -> torch.Tensor:
    return x.softmax(-1)


def _benchmark(rows: int, size: int, reach: float = 0.9) -> Benchmark:
    return Benchmark(
        f"{rows} x {size} bfloat16",
        lambda generator, device: {"x": torch.randn(rows, size, generator=generator).to(device, torch.bfloat16)},
        moved_bytes=2 * 2 * rows * size,
        baselines={"torch eager": _eager, "torch.compile": torch.compile(_eager)},
        goals=(Goal("copy", reach), Goal("torch.compile", 1.0)),
    )


BENCHMARKS = (
    _benchmark(262144, 128),
    _benchmark(16384, 4096),
    _benchmark(8192, 32768),
    _benchmark(1024, 128256, reach=0.75),  # read twice where L2 does not hold it
    _benchmark(16, 128256, reach=0.0),  # 4 MB each way: launch time counts
)
