"""Test inputs of ``sampling``: every truncation alone and together, ties, greedy rows, rows without finite logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import Inputs


@dataclass(frozen=True, slots=True)
class Rows:
    """``num`` rows of ``size`` logits; parameters repeat over the rows. ``steps``: logits are multiples of 1 / steps (ties)."""

    num: int
    size: int
    temperature: tuple[float, ...] = (1.0,)
    top_k: tuple[int, ...] = (0,)
    top_p: tuple[float, ...] = (1.0,)
    min_p: tuple[float, ...] = (0.0,)
    steps: float = 0.0
    dtype: torch.dtype = torch.float32
    edit: Callable[[Tensor], None] | None = None

    def logits(self, generator: torch.Generator) -> Tensor:
        """``[num, size]`` on the CPU; with ``steps`` rounded to multiples of ``1 / steps``, so that some are equal."""
        x = 3 * torch.randn(self.num, self.size, generator=generator)
        if self.steps:
            x = (x * self.steps).round() / self.steps
        if self.edit:
            self.edit(x)
        return x.to(self.dtype)

    def make(self, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
        """Arguments of ``sample``: logits ``[num, size]``, and one seed, position and set of parameters a row."""

        def each(values: tuple[float, ...], dtype: torch.dtype) -> Tensor:
            return torch.tensor([values[row % len(values)] for row in range(self.num)], dtype=dtype, device=device)

        return {
            "logits": self.logits(generator).to(device),
            "seeds": torch.randint(-(2**63), 2**63 - 1, (self.num,), generator=generator).to(device),
            "positions": torch.randint(0, 2**31, (self.num,), generator=generator).to(device),
            "temperature": each(self.temperature, torch.float32),
            "top_k": each(self.top_k, torch.int32),
            "top_p": each(self.top_p, torch.float64),
            "min_p": each(self.min_p, torch.float64),
        }


def _unsound(x: Tensor) -> None:
    x[0, 3], x[1, 5], x[2] = torch.nan, torch.inf, -torch.inf
    x[3, :-1] = -torch.inf  # one token is left, the last


ROWS = {
    "one token": Rows(2, 1),
    "plain": Rows(9, 301, temperature=(1.0, 0.3, 3.0)),
    "several tiles": Rows(3, 5003, temperature=(8.0,)),
    "top_k": Rows(8, 200, top_k=(1, 2, 50, 199, 200, -1, 300)),
    "top_p": Rows(5, 200, temperature=(1.0, 4.0), top_p=(0.0, 0.1, 0.5, 0.9, 0.999)),
    "min_p": Rows(6, 200, temperature=(4.0,), min_p=(0.01, 0.3, 1.0)),
    "all cuts": Rows(6, 1000, temperature=(0.7, 5.0), top_k=(40, 400, 0), top_p=(0.95, 0.4), min_p=(0.0, 0.05)),
    "ties": Rows(6, 500, (2.0,), (10, 3, 0), (1.0, 0.6), steps=1.0),
    "greedy among drawn": Rows(6, 300, temperature=(0.0, 1.0, 1e-6), top_p=(0.9,), steps=2.0),
    "unsound rows": Rows(5, 40, temperature=(1.0, 0.0), top_p=(0.9,), edit=_unsound),
    "bfloat16": Rows(2, 700, temperature=(2.0,), top_k=(30,), top_p=(0.8,), dtype=torch.bfloat16),
    "no rows": Rows(0, 10),
    "a real vocabulary": Rows(64, 128256, (0.8, 1.0), (0, 50), (0.95, 1.0), (0.0, 0.02)),
}
INPUTS = tuple(Inputs(name, rows.make, small=rows.num * rows.size < 1 << 16) for name, rows in ROWS.items())
