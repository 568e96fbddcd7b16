"""What is the right answer? ``x / sqrt(mean(x^2) + eps) * w`` in float64."""

from __future__ import annotations

from torch import Tensor


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """``x``: ``[..., N]``, ``weight`` broadcasts against it -> float64 ``[..., N]``."""
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
