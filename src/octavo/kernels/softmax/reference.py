"""Float64 reference of ``softmax``: torch's softmax."""

from __future__ import annotations

from torch import Tensor


def softmax_reference(x: Tensor) -> Tensor:
    """``x``: ``[..., N]`` -> float64 ``[..., N]``; a row of -inf alone, or with +inf or NaN, is NaN."""
    return x.double().softmax(-1)
