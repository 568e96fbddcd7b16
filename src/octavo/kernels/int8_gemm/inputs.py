"""Test inputs of ``int8_gemm``: one element, one row, split-K, sizes beside every tile, empty K, sums near 2^31."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.int8_gemm.checks import LONGEST
from octavo.kernels.operation import Inputs, Tolerance

Shape = tuple[int, int, int]


def make(
    shape: Shape, dtype: torch.dtype | None, generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """``(M, N, K)``: any integers; elements of the result have a variance near 1, whatever K."""
    rows, columns, size = shape
    a, b = (torch.randint(-128, 128, (n, size), generator=generator, dtype=torch.int8) for n in (rows, columns))
    a_scale, b_scale = (torch.rand(n, generator=generator) / 64 + 1e-3 for n in (rows, columns))
    tensors = {"a": a, "b": b, "a_scale": a_scale / max(1, size) ** 0.5, "b_scale": b_scale}
    return {name: one.to(device) for name, one in tensors.items()} | {"dtype": dtype}


def _largest(generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
    """Sums of 131,071 products of -128 and -128 (and 127) beside random ones."""
    arguments = dict(make((3, 2, LONGEST), torch.float32, generator, device))
    arguments["a"][:2] = -128
    arguments["b"][0], arguments["b"][1] = -128, 127
    return arguments


def _case(shape: Shape, dtype: torch.dtype | None = None) -> Inputs:
    rows, columns, size = shape
    return Inputs(
        f"{rows}x{columns}x{size}{f' {str(dtype)[6:]}' if dtype else ''}",
        lambda generator, device: make(shape, dtype, generator, device),
        tolerance=EXACT if dtype == torch.float32 else None,
        small=rows * columns * size < 1 << 22,
    )


EXACT = Tolerance(0.0, 2.0**-22)  # exact sums: what remains are four roundings to float32
INPUTS = (
    _case((1, 1, 1), torch.float32),
    _case((3, 72, 2100), torch.float32),
    _case((70, 136, 144)),
    _case((130, 33, 31), torch.float16),
    _case((4, 8, 0)),
    _case((0, 8, 64)),
    Inputs("the largest sums", _largest, tolerance=EXACT, small=False),
    _case((1, 4096, 4096)),
    _case((257, 4112, 1040), torch.float16),
    _case((1000, 1000, 1000), torch.float32),
    _case((4096, 4096, 14336)),
)
