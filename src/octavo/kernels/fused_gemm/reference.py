"""Float64 reference of ``fused_gemm``: product, bias and activation."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fused_gemm_reference(a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[K, N]`` -> float64 ``[M, N]``."""
    y = a.double() @ b.double()
    if bias is not None:
        y = y + bias.double()
    if activation == "gelu":
        return y / 2 * (1 + (y / math.sqrt(2)).erf())
    if activation == "gelu_tanh":
        return y / 2 * (1 + (math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)).tanh())
    return y * torch.sigmoid(y) if activation == "silu" else y
