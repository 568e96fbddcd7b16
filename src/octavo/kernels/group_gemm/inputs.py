"""Test inputs of ``group_gemm``: experts with few, no, all rows; rows of no expert; invalid offsets; sizes beside tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import Inputs, Tolerance

Shape = tuple[int, int, int]


def routed(rows: int, experts: int, generator: torch.Generator) -> Tensor:
    """Offsets of rows that chose their experts at random, as a router's choices are sorted."""
    chosen = torch.randint(0, experts, (rows,), generator=generator)
    counts = torch.bincount(chosen, minlength=experts)
    return torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0))).int()


def make(
    shape: Shape,
    offsets: tuple[int, ...] | int,
    dtype: torch.dtype,
    generator: torch.Generator,
    device: torch.device,
) -> Mapping[str, Any]:
    """``(T, N, K)``; ``offsets``: themselves, or the number of experts. Elements of the result have variance 1, whatever K."""
    rows, columns, size = shape
    places = routed(rows, offsets, generator) if isinstance(offsets, int) else torch.tensor(offsets, dtype=torch.int32)
    a = torch.randn((rows, size), generator=generator) / max(1, size) ** 0.5
    b = torch.randn((len(places) - 1, columns, size), generator=generator)
    return {"a": a.to(device, dtype), "b": b.to(device, dtype), "offsets": places.to(device)}


def _case(
    words: str, shape: Shape, offsets: tuple[int, ...] | int, dtype: torch.dtype = torch.bfloat16, small: bool = True
) -> Inputs:
    return Inputs(
        f"{words}, {'x'.join(map(str, shape))} {str(dtype)[6:]}",
        lambda generator, device: make(shape, offsets, dtype, generator, device),
        tolerance=Tolerance(3e-7 * max(16, shape[2] ** 0.5), 1e-5) if dtype == torch.float32 else None,
        small=small,
    )


INPUTS = (
    _case("one row", (1, 1, 1), 1),
    _case("few rows each", (13, 70, 40), 8),
    _case("no rows", (0, 8, 16), (0, 0, 0)),
    _case("empty experts", (9, 33, 31), (0, 0, 4, 4, 4, 9, 9), torch.float16),
    _case("one expert has all", (70, 24, 64), (0, 0, 70, 70), torch.float16),
    _case("rows of no expert", (20, 40, 32), (0, 9, 9, 15), torch.float32),
    _case("offsets out of range", (20, 40, 32), (-7, 5, 12, 99)),
    _case("nothing to add up", (5, 8, 0), (0, 2, 5)),
    _case("tiles", (300, 136, 72), (0, 130, 131, 300)),
    _case("Mixtral, many rows", (4096, 4096, 4096), 8, small=False),
    _case("128 experts", (1000, 768, 2048), 128, small=False),
    _case("128 experts, one has all", (1000, 768, 2048), (*(0,) * 64, *(1000,) * 65), small=False),
)
