"""Gated activations with torch's own operations: SiLU (Shazeer, 2020) and GELU in its tanh form."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def silu_mul(x: Tensor, act: str = "silu") -> Tensor:
    """``x``: ``[..., 2 I]``, the gates then the ups -> ``[..., I]``, contiguous. ``act``: ``silu`` or ``gelu_tanh``."""
    gate, up = x.chunk(2, -1)
    if act == "silu":
        return F.silu(gate).mul_(up)
    if act == "gelu_tanh":
        return F.gelu(gate, approximate="tanh").mul_(up)
    raise ValueError(f"unknown activation {act!r}; known: silu, gelu_tanh")


def silu_mul_backward(grad: Tensor, x: Tensor, act: str = "silu") -> Tensor:
    """The gradient by ``x``."""
    gate, up = x.float().chunk(2, -1)
    z, steepness = gate, torch.ones_like(gate)
    if act == "gelu_tanh":  # both activations are gate * sigmoid(z)
        factor = 2 * math.sqrt(2 / math.pi)
        z, steepness = factor * (gate + 0.044715 * gate**3), factor * (1 + 3 * 0.044715 * gate.square())
    share, weighted = z.sigmoid(), grad.float()
    slope = share * (1 + gate * (1 - share) * steepness)
    return torch.cat((weighted * up * slope, weighted * gate * share), -1).to(x.dtype)
