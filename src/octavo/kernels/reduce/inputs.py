"""Test inputs of ``reduce``: empty, one element, sizes around warp, block and vector load, short and long rows, unaligned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.operation import Inputs, Tolerance


def make(
    shape: tuple[int, ...], dtype: torch.dtype, last: bool, shift: int, generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """Normal; ``x`` begins ``shift`` elements behind an allocation."""
    values = torch.randn(torch.Size(shape).numel() + shift, generator=generator)
    return {"x": values.to(device, dtype)[shift:].view(shape), "last": last}


def _case(shape: tuple[int, ...], dtype: torch.dtype, last: bool = False, shift: int = 0) -> Inputs:
    # A sum of n normal numbers is about sqrt(n), and so are the partial sums that are rounded at 2^-24 on the way.
    count = shape[-1] if last else torch.Size(shape).numel()
    name = f"{'x'.join(map(str, shape))} {str(dtype)[6:]}{' rows' if last else ''}{f' shifted by {shift}' if shift else ''}"
    return Inputs(
        name,
        lambda generator, device: make(shape, dtype, last, shift, generator, device),
        tolerance=Tolerance(2e-6 * max(1, count) ** 0.5, 2e-6),
        small=torch.Size(shape).numel() < 1 << 17,
    )


INPUTS = (
    _case((1,), torch.float32),
    _case((0,), torch.float32),
    _case((3, 0), torch.float16, last=True),
    _case((0, 5), torch.float16, last=True),
    _case((257,), torch.bfloat16),
    _case((100_003,), torch.bfloat16, shift=3),
    _case((70_000,), torch.float32),
    _case((37, 31), torch.float32, last=True),
    _case((2, 9, 1023), torch.float16, last=True, shift=1),
    _case((3, 20_001), torch.bfloat16, last=True),
    _case((1 << 28,), torch.bfloat16),
    _case((8192, 8192), torch.float32, last=True),
    _case((1 << 20, 100), torch.bfloat16, last=True),
    _case(((1 << 31) + 77,), torch.bfloat16),  # more elements than an int counts
)
