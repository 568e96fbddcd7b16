"""Benchmark shapes of ``linear``: an MLP projection of Llama-3.1-8B at the row counts of decode and of prefill."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from octavo.kernels.linear.inputs import make
from octavo.kernels.operation import Benchmark

BENCHMARKS = tuple(
    Benchmark(
        f"{rows} x 4096 x 14336 bfloat16",
        partial(make, (rows, 4096, 14336), torch.bfloat16, False),
        moved_bytes=2 * (rows * (4096 + 14336) + 4096 * 14336),
        operations=2 * rows * 4096 * 14336,
        limit="copy" if rows < 100 else "bf16",
        baselines={"torch eager": F.linear},
    )
    for rows in (1, 16, 4096)
)
