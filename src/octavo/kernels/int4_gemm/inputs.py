"""Test inputs of ``int4_gemm``: all group sizes and scale dtypes, partial groups, split-K, tile edges, dequantise-first sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.int4_gemm.checks import quantize
from octavo.kernels.operation import Inputs

Shape = tuple[int, int, int]


def make(
    shape: Shape, group: int, dtypes: tuple[torch.dtype, torch.dtype], generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """``(M, N, K)``; ``dtypes``: of ``x``, of scales. Elements of the result have variance 1, whatever K."""
    rows, columns, size = shape
    x = torch.randn((rows, size), generator=generator) / max(1, size) ** 0.5
    weight = torch.randn((columns, size), generator=generator)
    packed, scale, minimum = quantize(weight, group, dtypes[1])
    tensors = {"x": x.to(dtypes[0]), "packed": packed, "scale": scale, "minimum": minimum}
    return {name: one.to(device) for name, one in tensors.items()} | {"group": group}


def _case(shape: Shape, group: int, dtype: torch.dtype = torch.bfloat16, scales: torch.dtype = torch.float16) -> Inputs:
    rows, columns, size = shape
    return Inputs(
        f"{rows}x{columns}x{size} by {group} {str(dtype)[6:]} {str(scales)[6:]}",
        lambda generator, device: make(shape, group, (dtype, scales), generator, device),
        small=rows * columns * size < 1 << 22 or rows > 1 << 10 >= columns,
    )


INPUTS = (
    _case((1, 1, 1), 32),
    _case((1, 72, 2048), 64, scales=torch.bfloat16),
    _case((5, 130, 1100), 32, torch.float16),
    _case((16, 70, 2300), 128, scales=torch.float32),
    _case((70, 136, 144), 128, torch.float16),
    _case((130, 33, 31), 64),
    _case((1030, 24, 72), 32),
    _case((0, 8, 64), 128),
    _case((1, 4096, 4096), 128),
    _case((16, 28672, 4096), 32),
    _case((257, 4112, 1040), 64, torch.float16),
    _case((1000, 1000, 1000), 128),
    _case((4096, 4096, 14336), 128),
)
