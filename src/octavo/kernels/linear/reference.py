"""What is the right answer? ``x W^T + b`` in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x``: ``[T, K]``, ``weight``: ``[N, K]``, ``bias``: ``[N]`` -> float64 ``[T, N]``."""
    x, weight = x.double(), weight.double()
    out = torch.empty(x.shape[0], weight.shape[0], dtype=torch.float64)
    for row in range(x.shape[0]):
        out[row] = (weight * x[row]).sum(1)
    return out if bias is None else out + bias.double()
