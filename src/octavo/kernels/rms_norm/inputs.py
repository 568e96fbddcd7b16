"""Test inputs of ``rms_norm``: odd rows and widths, a weight per head, sliced rows, values that overflow a half when squared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import Inputs

Make = Callable[[torch.Generator, torch.device], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows to normalise: ``[*size[:-1], N]``, their values ``scale`` times normal ones; ``shift``: their mean."""

    size: tuple[int, ...]
    dtype: torch.dtype
    heads: bool = False  # a weight per head
    scale: float = 1.0
    shift: float = 0.0
    sliced: bool = False  # x is the first heads of more

    def __str__(self) -> str:
        name = f"{'x'.join(map(str, self.size))} {str(self.dtype)[6:]}{' per head' if self.heads else ''}"
        name += f" times {self.scale:g}" if self.scale != 1 else ""
        name += " sliced" if self.sliced else ""
        return name + (f" plus {self.shift:g}" if self.shift else "")

    def rows(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """``size``, normal with the shape's mean and scale."""
        return (self.shift + self.scale * torch.randn(self.size, generator=generator)).to(device, self.dtype)

    def weight(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """``[N]``, or ``[heads, N]`` where each head has its own; near 1."""
        shape = self.size[-2:] if self.heads else self.size[-1:]
        return (1 + torch.randn(shape, generator=generator) / 4).to(device, self.dtype)

    def inputs(self, *names: str) -> Make:
        """Random rows for each of the names (``x`` has the shape's scale and shift); ``weight`` and ``bias`` as such; and eps."""
        plain = Shape(self.size, self.dtype, self.heads)

        def make(generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
            made: dict[str, Any] = {"eps": 1e-5}
            for name in names:
                if name in ("weight", "bias"):
                    made[name] = self.weight(generator, device)
                else:
                    made[name] = (self if name == "x" else plain).rows(generator, device)
            if self.sliced:
                made["x"] = torch.cat((made["x"], made["x"]), -2)[..., : self.size[-2], :]
            return made

        return make


def inputs_for(shapes: Sequence[Shape], *names: str) -> tuple[Inputs, ...]:
    """Test inputs, one for each shape, with random tensors for the arguments named."""
    return tuple(Inputs(str(one), one.inputs(*names), small=torch.Size(one.size).numel() < 1 << 16) for one in shapes)


SHAPES = (
    Shape((1, 1), torch.float32),
    Shape((7, 64), torch.float32),
    Shape((3, 5, 576), torch.bfloat16),
    Shape((67, 127), torch.float16),
    Shape((2, 4097), torch.bfloat16),
    Shape((5, 3, 64), torch.bfloat16, heads=True),
    Shape((4, 1000), torch.float16, scale=300.0),
    Shape((0, 64), torch.float32),
    Shape((4096, 4096), torch.bfloat16),
    Shape((3, 70000), torch.bfloat16),
)
SLICED = (Shape((5, 3, 64), torch.bfloat16, heads=True, sliced=True), Shape((9, 2, 16), torch.float32, sliced=True))
INPUTS = inputs_for((*SHAPES, *SLICED), "x", "weight")
