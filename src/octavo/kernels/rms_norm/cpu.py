"""RMSNorm with torch's own operations, float32 inside."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """``x``: ``[..., N]``; ``weight``: ``[N]``, or ``[H, N]`` for one weight per head -> shape and dtype of ``x``."""
    if weight.dim() == 1:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x, x.shape[-1:], None, eps).mul_(weight)
