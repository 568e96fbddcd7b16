"""What is the right answer? torch's softmax in float64."""

from __future__ import annotations

from torch import Tensor


def softmax_reference(x: Tensor) -> Tensor:
    """``x``: ``[..., N]`` -> float64 ``[..., N]``; a row of -inf alone, or with +inf or NaN, is NaN."""
    return x.double().softmax(-1)
