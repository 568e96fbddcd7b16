"""Test inputs of ``softmax``: odd widths, many short rows, rows longer than registers, overflowing logits, -inf and NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import Inputs


def _case(
    shape: tuple[int, ...], dtype: torch.dtype, words: str = "", edit: Callable[[Tensor], Tensor] | None = None
) -> Inputs:
    def make(generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
        x = 3 * torch.randn(shape, generator=generator)
        return {"x": (edit(x) if edit else x).to(device, dtype)}

    name = f"{'x'.join(map(str, shape))} {str(dtype)[6:]} {words}".rstrip()
    return Inputs(name, make, small=torch.Size(shape).numel() < 1 << 20)


def _infinite(x: Tensor) -> Tensor:
    """Masked scores: most of a row is -inf, one row is nothing else, one holds a NaN."""
    x[:, 1::3] = -torch.inf
    x[1], x[2, 5] = -torch.inf, torch.nan
    return x


INPUTS = (
    _case((1, 1), torch.float32),
    _case((2, 3, 77), torch.float32),
    _case((67, 127), torch.float16),
    _case((301, 16), torch.bfloat16),
    _case((3, 4097), torch.bfloat16),
    _case((4, 1000), torch.float32, "times 1e4", lambda x: 1e4 * x),
    _case((5, 200), torch.float32, "masked", _infinite),
    _case((3, 33001), torch.float32, "masked", _infinite),
    _case((4, 33001), torch.bfloat16),
    _case((0, 64), torch.float32),
    _case((4096, 4096), torch.bfloat16),
    _case((300, 128256), torch.float16),
    _case((2, 1000003), torch.float32),
)
