"""The sum with torch's own operation."""

from __future__ import annotations

from torch import Tensor


def vector_add(a: Tensor, b: Tensor) -> Tensor:
    """-> shape and dtype of ``a``."""
    return a + b
