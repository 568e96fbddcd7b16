"""Test inputs of ``penalties``: lists of different lengths, empty ones, tokens outside the vocabulary, zero counts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from octavo.kernels.operation import Inputs


def make(
    lens: tuple[int, ...], size: int, dtype: torch.dtype, generator: torch.Generator, device: torch.device
) -> Mapping[str, Any]:
    """Arguments of ``penalties``: logits ``[len(lens), size]``, and ``lens`` tokens a row, some of them outside ``0 .. size``."""
    rows = len(lens)
    listed = [torch.randperm(size, generator=generator)[:length] for length in lens]
    tokens = torch.cat([*listed, torch.empty(0, dtype=torch.int64)]).to(torch.int32)
    tokens[5::19] = size + 2
    tokens[6::23] = -1
    some = 0.5 + torch.rand(3, rows, generator=generator)
    return {
        "logits": (4 * torch.randn(rows, size, generator=generator)).to(device, dtype),
        "starts": torch.tensor([0, *lens]).cumsum(0).to(device, torch.int32),
        "tokens": tokens.to(device),
        "counts": torch.randint(0, 4, tokens.shape, generator=generator).float().to(device),
        **{name: one.to(device) for name, one in zip(("repetition", "presence", "frequency"), some, strict=True)},
    }


INPUTS = tuple(
    Inputs(name, partial(make, lens, size, dtype), small=size < 10000)
    for name, lens, size, dtype in (
        ("a list each", (5, 0, 300, 1), 400, torch.float32),
        ("no lists", (0, 0), 7, torch.float32),
        ("bfloat16", (30, 20), 64, torch.bfloat16),
        ("no rows", (), 7, torch.float32),
        ("long lists", (20000, 3, 100000), 128256, torch.float32),
    )
)
