"""Test inputs of ``linear``: row counts around every change of path on a CPU, biases, sliced rows, a large matrix."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import Inputs, Tolerance

SUMMED = Tolerance(1e-4, 1e-4)  # float32: K products added in another order


def make(
    shape: tuple[int, int, int], dtype: torch.dtype, bias: bool, generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """``shape``: T, K, N; the rows of ``x`` are every other one of a wider matrix."""
    rows, inner, outputs = shape

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(device, dtype)

    weight = (torch.randn(outputs, inner, generator=generator) / inner**0.5).to(device, dtype)
    return {"x": random(2 * rows, inner + 1)[::2, 1:], "weight": weight, "bias": random(outputs) if bias else None}


INPUTS = tuple(
    Inputs(
        f"{rows} x {inner} x {outputs} {str(dtype)[6:]}{' bias' * bias}",
        partial(make, (rows, inner, outputs), dtype, bias),
        SUMMED if dtype is torch.float32 else None,
        small=rows * inner * outputs < 1 << 28,
    )
    for rows, inner, outputs, dtype, bias in (
        (1, 3, 5, torch.float32, False),
        (2, 48, 64, torch.float32, True),
        (8, 129, 33, torch.float32, False),
        (9, 48, 64, torch.float32, True),
        (16, 129, 33, torch.float32, True),
        (96, 129, 33, torch.float32, False),
        (7, 48, 64, torch.bfloat16, True),
        (1, 1024, 1030, torch.float32, True),
        (12, 1024, 1030, torch.float32, False),
        (0, 8, 6, torch.float32, False),
        (4096, 4096, 4096, torch.bfloat16, False),
    )
)
