"""Test inputs of ``logprobs``: the rows of ``sampling``, chosen tokens anywhere, alternatives that tie."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from octavo.kernels.operation import Inputs
from octavo.kernels.sampling.inputs import Rows


def make(rows: Rows, num_top: int, generator: torch.Generator, device: torch.device) -> Mapping[str, Any]:
    """Arguments of ``logprobs``: logits ``[R, V]``, and tokens ``[R]``, of which every fourth is -1 (none)."""
    tokens = torch.randint(0, rows.size, (rows.num,), generator=generator)
    tokens[1::4] = -1  # a row without a token
    return {"logits": rows.logits(generator).to(device), "tokens": tokens.to(device), "num_top": num_top}


INPUTS = tuple(
    Inputs(name, partial(make, rows, num_top), small=rows.num * rows.size < 1 << 16)
    for name, rows, num_top in (
        ("chosen alone", Rows(5, 301), 0),
        ("ties", Rows(4, 200, steps=1.0), 20),
        ("several tiles, bfloat16", Rows(2, 4999, dtype=torch.bfloat16), 3),
        ("all", Rows(3, 9), 9),
        ("no rows", Rows(0, 9), 2),
        ("a real vocabulary", Rows(64, 128256), 20),
    )
)
