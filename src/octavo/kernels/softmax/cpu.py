"""Softmax with torch's own operation."""

from __future__ import annotations

from torch import Tensor


def softmax(x: Tensor) -> Tensor:
    """``x``: ``[..., N]`` -> shape and dtype of ``x``."""
    return x.softmax(-1)
