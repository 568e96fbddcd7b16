"""Gated activations with torch's own operations: SiLU (Shazeer, 2020) and GELU in its tanh form."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gated(x: Tensor, act: str) -> Tensor:
    """``x``: ``[T, 2 I]``, the gates then the ups -> ``[T, I]``, contiguous. ``act``: ``silu`` or ``gelu_tanh``."""
    gate, up = x.chunk(2, -1)
    if act == "silu":
        return F.silu(gate).mul_(up)
    if act == "gelu_tanh":
        return F.gelu(gate, approximate="tanh").mul_(up)
    raise ValueError(f"unknown activation {act!r}; known: silu, gelu_tanh")
