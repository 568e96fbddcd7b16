"""Float64 reference of ``matmul``: ``a @ b``."""

from __future__ import annotations

from torch import Tensor


def matmul_reference(a: Tensor, b: Tensor) -> Tensor:
    """``a``: ``[M, K]``, ``b``: ``[K, N]`` -> float64 ``[M, N]``."""
    return a.double() @ b.double()
