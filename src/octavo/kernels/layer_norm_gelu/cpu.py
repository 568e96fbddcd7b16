"""Layer normalisation and GELU with torch's own operations: two passes over the memory."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def layer_norm_gelu(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, approximate: str = "none") -> Tensor:
    """``x``: ``[..., N]`` -> the same; between the two, values are float32."""
    normed = F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps)
    return F.gelu(normed, approximate=approximate).to(x.dtype)
