"""Test inputs of ``vector_add``: one element, sizes around a vector load and a block, tensors unaligned to 16 bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import Inputs


def make(
    shape: tuple[int, ...], dtype: torch.dtype, shift: int, generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """``shift``: ``a`` begins so many elements behind an allocation."""

    def vector(shift: int) -> Tensor:
        count = torch.Size(shape).numel()
        return torch.randn(count + shift, generator=generator).to(device, dtype)[shift:].view(shape)

    return {"a": vector(shift), "b": vector(0)}


def _case(shape: tuple[int, ...], dtype: torch.dtype, shift: int = 0) -> Inputs:
    return Inputs(
        f"{'x'.join(map(str, shape))} {str(dtype)[6:]}{f' shifted by {shift}' if shift else ''}",
        lambda generator, device: make(shape, dtype, shift, generator, device),
        small=torch.Size(shape).numel() < 1 << 20,
    )


INPUTS = (
    _case((1,), torch.float32),
    _case((), torch.float16),
    _case((0, 3), torch.float32),
    _case((7, 9, 11), torch.bfloat16),
    _case((4, 1024), torch.bfloat16),
    _case((100_003,), torch.float32),
    _case((30_001,), torch.float16, shift=1),
    _case((1 << 26,), torch.bfloat16),
    _case(((1 << 31) + 11,), torch.bfloat16),  # more elements than an int counts
)
