"""Test inputs of ``layer_norm_gelu``: rows of a warp, of a block, longer than registers; unaligned; far from zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.operation import Inputs, Tolerance


def make(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    approximate: str,
    offset: float,
    generator: torch.Generator,
    device: torch.device,
) -> Mapping[str, Any]:
    """``offset`` is added to every element of ``x``: a variance computed as E[x^2] - E[x]^2 would lose its digits there."""
    x = torch.randn(shape, generator=generator) + offset
    weight = 1 + torch.randn(shape[-1:], generator=generator) / 4
    bias = torch.randn(shape[-1:], generator=generator) / 4
    arguments = {"x": x, "weight": weight, "bias": bias}
    return {name: one.to(device, dtype) for name, one in arguments.items()} | {"eps": 1e-5, "approximate": approximate}


def _case(shape: tuple[int, ...], dtype: torch.dtype, approximate: str = "none", offset: float = 0.0) -> Inputs:
    name = f"{'x'.join(map(str, shape))} {str(dtype)[6:]} {approximate}{f' around {offset:g}' if offset else ''}"
    return Inputs(
        name,
        lambda generator, device: make(shape, dtype, approximate, offset, generator, device),
        tolerance=Tolerance(1e-4, 1e-4) if offset else None,  # x itself is rounded at offset * 2^-24
        small=torch.Size(shape).numel() < 1 << 17,
    )


INPUTS = (
    _case((1, 1), torch.float32),
    _case((9, 64), torch.bfloat16),
    _case((3, 5, 1024), torch.float16, "tanh"),
    _case((5, 127), torch.bfloat16),
    _case((3, 1288), torch.bfloat16),
    _case((2, 1031), torch.float32, "tanh"),
    _case((3, 1024), torch.float32, offset=100.0),
    _case((1, 40_000), torch.bfloat16),
    _case((0, 64), torch.float32),
    _case((4096, 4096), torch.bfloat16),
    _case((300, 16384), torch.float16),
)
