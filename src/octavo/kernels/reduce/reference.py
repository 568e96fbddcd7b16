"""Float64 reference of ``reduce``: the sum."""

from __future__ import annotations

from torch import Tensor


def reduce_reference(x: Tensor, last: bool = False) -> Tensor:
    """-> float64, of ``x``'s shape without the last dimension, or of no dimensions."""
    return x.double().sum(-1) if last else x.double().sum()
