"""Odd rows and widths, one weight per head, values that overflow a half when squared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.operation import Case


def _make(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    heads: bool,
    scale: float,
    generator: torch.Generator,
    device: torch.device,
) -> Mapping[str, Any]:
    x = scale * torch.randn(shape, generator=generator)
    weight = 1 + torch.randn(shape[-2:] if heads else shape[-1:], generator=generator) / 4
    return {"x": x.to(device, dtype), "weight": weight.to(device, dtype), "eps": 1e-5}


def _case(shape: tuple[int, ...], dtype: torch.dtype, heads: bool = False, scale: float = 1.0) -> Case:
    name = f"{'x'.join(map(str, shape))} {str(dtype)[6:]}{' per head' if heads else ''}"
    name += f" times {scale:g}" if scale != 1 else ""
    return Case(
        name,
        lambda generator, device: _make(shape, dtype, heads, scale, generator, device),
        small=torch.Size(shape).numel() < 1 << 16,
    )


CASES = (
    _case((1, 1), torch.float32),
    _case((7, 64), torch.float32),
    _case((3, 5, 576), torch.bfloat16),
    _case((67, 127), torch.float16),
    _case((2, 4097), torch.bfloat16),
    _case((5, 3, 64), torch.bfloat16, heads=True),
    _case((4, 1000), torch.float16, scale=300.0),
    _case((0, 64), torch.float32),
    _case((4096, 4096), torch.bfloat16),
)
