"""Float64 reference of ``vector_add``: ``a + b``."""

from __future__ import annotations

from torch import Tensor


def vector_add_reference(a: Tensor, b: Tensor) -> Tensor:
    """-> float64, of ``a``'s shape."""
    return a.double() + b.double()
