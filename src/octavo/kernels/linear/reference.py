"""Float64 reference of ``linear``: ``x W^T + b``."""

from __future__ import annotations

from torch import Tensor


def linear_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x``: ``[T, K]``, ``weight``: ``[N, K]``, ``bias``: ``[N]`` -> float64 ``[T, N]``."""
    out = x.double() @ weight.double().T
    return out if bias is None else out + bias.double()
