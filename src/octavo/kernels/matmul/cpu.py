"""The matrix product with torch's own operation (on a GPU: cuBLAS)."""

from __future__ import annotations

from torch import Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[K, N]`` -> ``[M, N]`` of ``a``'s dtype."""
    return a @ b
