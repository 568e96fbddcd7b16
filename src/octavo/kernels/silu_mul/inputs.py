"""Test inputs of ``silu_mul`` and its gradient: odd widths, empty rows, large gates of either sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from octavo.kernels.operation import Inputs


@dataclass(frozen=True, slots=True)
class Shape:
    """``x``: ``[*size, 2 I]``."""

    size: tuple[int, ...]
    dtype: torch.dtype
    act: str = "silu"
    scale: float = 2.0

    def make(self, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
        """Arguments of ``silu_mul``: ``x`` of ``size``, normal times ``scale``."""
        x = self.scale * torch.randn(self.size, generator=generator)
        return {"x": x.to(device, self.dtype), "act": self.act}

    def make_backward(self, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
        """Arguments of ``silu_mul_backward``: as ``make``'s, and ``grad``, half as wide."""
        grad = torch.randn(*self.size[:-1], self.size[-1] // 2, generator=generator)
        return {"grad": grad.to(device, self.dtype), **self.make(generator, device)}


SHAPES = {
    f"{'x'.join(map(str, one.size))} {str(one.dtype)[6:]} {one.act} times {one.scale:g}": one
    for one in (
        Shape((1, 2), torch.float32),
        Shape((3, 5, 66), torch.float32, "gelu_tanh"),
        Shape((37, 2046), torch.bfloat16),
        Shape((5, 4100), torch.float16, "gelu_tanh"),
        Shape((9, 128), torch.float32, scale=50.0),
        Shape((9, 128), torch.float32, "gelu_tanh", scale=9.0),
        Shape((0, 6), torch.float32),
        Shape((3, 0), torch.float32),
        Shape((4096, 28672), torch.bfloat16),
        Shape((4096, 21504), torch.bfloat16, "gelu_tanh"),
    )
}
SMALL = 1 << 18
INPUTS = tuple(Inputs(name, one.make, small=torch.Size(one.size).numel() < SMALL) for name, one in SHAPES.items())
