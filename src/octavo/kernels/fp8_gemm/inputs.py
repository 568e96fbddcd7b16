"""Test inputs of ``fp8_gemm``: row and block scales, one element, one row, split-K, sizes beside every tile, empty K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.fp8_gemm.checks import quantize_blocks
from octavo.kernels.operation import Inputs
from octavo.kernels.quantize_fp8.cpu import quantize_fp8

Shape = tuple[int, int, int]


def make(
    shape: Shape, blocks: bool, dtype: torch.dtype | None, generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """``(M, N, K)``: normal activations and weights, quantised; elements of the result have variance 1, whatever K."""
    rows, columns, size = shape
    x = torch.randn((rows, size), generator=generator) * torch.exp(torch.randn((1, size), generator=generator) / 2)
    weight = torch.randn((columns, size), generator=generator) / (2 * max(1, size)) ** 0.5
    if size == 0:
        a, a_scale = x.to(torch.float8_e4m3fn), torch.ones(rows)
        b, b_scale = weight.to(torch.float8_e4m3fn), torch.ones(columns)
    else:
        a, a_scale = quantize_fp8(x, 128 if blocks else 0)
        b, b_scale = quantize_blocks(weight) if blocks else quantize_fp8(weight)
    tensors = {"a": a, "b": b, "a_scale": a_scale, "b_scale": b_scale}
    return {name: one.to(device) for name, one in tensors.items()} | {"dtype": dtype}


def _case(shape: Shape, blocks: bool, dtype: torch.dtype | None = None) -> Inputs:
    rows, columns, size = shape
    return Inputs(
        f"{rows}x{columns}x{size} {'blocks' if blocks else 'rows'}{f' {str(dtype)[6:]}' if dtype else ''}",
        lambda generator, device: make(shape, blocks, dtype, generator, device),
        small=rows * columns * size < 1 << 22,
    )


INPUTS = (
    _case((1, 1, 1), False),
    _case((1, 1, 1), True),
    _case((3, 72, 2100), False),
    _case((5, 130, 1100), True),
    _case((70, 136, 144), False, torch.float16),
    _case((65, 150, 300), True),
    _case((130, 33, 31), False),
    _case((4, 8, 0), False),
    _case((0, 8, 64), True),
    _case((1, 4096, 4096), False),
    _case((64, 6144, 4096), True),
    _case((257, 4112, 1040), False, torch.float16),
    _case((1000, 1000, 1000), True),
    _case((4096, 4096, 14336), False),
    _case((4096, 6144, 4096), True),
)
