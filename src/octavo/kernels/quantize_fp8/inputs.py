"""Test inputs of ``quantize_fp8``: odd rows, short last groups, zeros, NaN, infinities, ends of the float32 range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.operation import Inputs, Tolerance

EXACT = Tolerance(0.0, 0.0)


def make(
    shape: tuple[int, ...], dtype: torch.dtype, group: int, generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """Rows of very different sizes, with small numbers beside large ones."""
    sizes = torch.exp(4 * torch.randn(*shape[:-1], 1, generator=generator))
    x = sizes * torch.randn(shape, generator=generator) * torch.exp(2 * torch.randn(shape, generator=generator))
    return {"x": x.clamp(-6e4, 6e4).to(device, dtype), "group": group}


def make_special(group: int, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
    """A row each: zeros, both signs of zero, a NaN, an infinity, the largest floats, the smallest, ties of e4m3, one element."""
    x = torch.randn(9, 96, generator=generator)
    x[0] = 0
    x[1, ::2], x[1, 1::2] = 0.0, -0.0
    x[2, 40] = torch.nan
    x[3, 41] = -torch.inf
    x[4, :2] = torch.tensor([3.4028235e38, -3.4028235e38])
    x[5] *= 1e-40
    x[6] = torch.arange(96) - 48.0
    x[6, 0] = 448
    x[7, 1:] = 0
    x[8] *= 1e-30
    return {"x": x.to(device), "group": group}


def inputs_for(longest: int) -> tuple[Inputs, ...]:
    """For a quantiser: every back end gives the same bits."""

    def case(shape: tuple[int, ...], dtype: torch.dtype, group: int = 0) -> Inputs:
        return Inputs(
            f"{'x'.join(map(str, shape))} {str(dtype)[6:]} by {group or 'row'}",
            lambda generator, device: make(shape, dtype, group, generator, device),
            tolerance=EXACT,
            small=torch.Size(shape).numel() < 1 << 16,
        )

    def special(group: int) -> Inputs:
        return Inputs(
            f"zeros, NaN, infinities by {group or 'row'}",
            lambda generator, device: make_special(group, generator, device),
            tolerance=EXACT,
        )

    return (
        case((1, 1), torch.float32),
        case((5, 100), torch.bfloat16),
        case((2, 3, 257), torch.float16),
        case((0, 64), torch.bfloat16),
        case((3, 128), torch.bfloat16, 128),
        case((2, 5, 300), torch.float32, 128),
        case((3, 1000), torch.float16, 32),
        case((2, 9000), torch.bfloat16, 64),
        case((2, longest + 1), torch.bfloat16),
        case((300, 4096), torch.bfloat16),
        case((300, 14336), torch.bfloat16, 128),
        special(0),
        special(32),
    )


INPUTS = inputs_for(16384)  # elements of a row that Triton's kernel keeps in registers
