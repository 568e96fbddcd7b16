"""Product, bias and activation with torch's own operations, each a pass over the result."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def fused_gemm(a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[K, N]`` -> ``[M, N]``."""
    y = F.linear(a, b.t(), bias)
    if activation == "silu":
        return F.silu(y)
    if activation == "none":
        return y
    return F.gelu(y, approximate="tanh" if activation == "gelu_tanh" else "none")
