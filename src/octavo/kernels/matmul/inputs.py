"""Test inputs of ``matmul``: one element, one row, sizes beside every tile, empty K, rows unaligned for 16-byte loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.operation import Inputs, Tolerance


def make(
    shape: tuple[int, int, int], dtype: torch.dtype, generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """``(M, K, N)``: elements of ``a @ b`` are normal with variance 1, whatever K."""
    rows, inner, columns = shape
    a = torch.randn((rows, inner), generator=generator) / max(1, inner) ** 0.5
    b = torch.randn((inner, columns), generator=generator)
    return {"a": a.to(device, dtype), "b": b.to(device, dtype)}


def _case(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Inputs:
    # float32: K terms of size 1/sqrt(K), each sum rounded at 2^-24; the partial sums stay near 1
    exact = Tolerance(3e-7 * max(16, inner**0.5), 1e-5) if dtype == torch.float32 else None
    return Inputs(
        f"{rows}x{inner}x{columns} {str(dtype)[6:]}",
        lambda generator, device: make((rows, inner, columns), dtype, generator, device),
        tolerance=exact,
        small=rows * inner * columns < 1 << 22,
    )


SHAPES = (
    (33, 31, 35),
    (130, 40, 136),
    (129, 72, 264),
    (1024, 512, 768),
    (4099, 1000, 257),
)
EDGES = ((1, 1, 1), (1, 64, 72), (17, 1000, 40), (64, 0, 8), (0, 8, 8), (4096, 4096, 4096))

INPUTS = (
    *(_case(*shape, dtype) for dtype in (torch.float32, torch.bfloat16) for shape in (*EDGES, *SHAPES)),
    *(_case(*shape, torch.float16) for shape in SHAPES),  # in every kernel what bfloat16 is, but for the conversions
)
