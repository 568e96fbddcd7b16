"""Benchmark shapes shared by all matrix products: Llama-3.1-8B's layers, decode to long prompts; baseline: cuBLAS bf16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


class ProductShape(NamedTuple):
    """Of ``[rows, size]`` times ``[size, columns]``: M, N and K."""

    rows: int
    columns: int
    size: int


LAYERS: Mapping[str, tuple[int, int]] = {  # inputs, outputs
    "qkv": (4096, 6144),
    "o": (4096, 4096),
    "gate_up": (4096, 28672),
    "down": (14336, 4096),
}
ROWS = (1, 16, 64, 256, 1024, 4096)
MANY_ROWS = 1024  # from here on the tensor cores are the limit
COMPILED = tuple(
    ProductShape(rows, 4096, 4096) for rows in (16, 256, 4096)
)  # whose default tiles are compiled ahead of time


def layers() -> Iterator[tuple[str, ProductShape]]:
    """Each layer for each number of rows, with its name."""
    for rows in ROWS:
        for name, (inputs, outputs) in LAYERS.items():
            yield f"{rows} rows, {name} {inputs}x{outputs}", ProductShape(rows, outputs, inputs)


def bf16_matmul(a: Tensor, b: Tensor, **_: Any) -> Tensor:
    """``torch.mm`` on random bf16 matrices of the shapes of ``a`` ``[M, K]`` and ``b`` ``[N, K]``."""
    x, weight = _in_bf16(a, b)
    return torch.mm(x, weight.T)


@lru_cache(maxsize=1)
def _in_bf16(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Made at a benchmark's first call, which is not timed."""
    generator = torch.Generator(a.device).manual_seed(0)
    x, weight = (torch.randn(one.shape, generator=generator, device=one.device) for one in (a, b))
    return x.bfloat16(), weight.bfloat16()
