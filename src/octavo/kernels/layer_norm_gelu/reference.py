"""Float64 reference of ``layer_norm_gelu``: both formulas."""

from __future__ import annotations

import math

from torch import Tensor


def layer_norm_gelu_reference(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, approximate: str = "none"
) -> Tensor:
    """``x``: ``[..., N]`` -> float64 ``[..., N]``."""
    x = x.double()
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double() + bias.double()
    if approximate == "tanh":
        return y / 2 * (1 + (math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)).tanh())
    return y / 2 * (1 + (y / math.sqrt(2)).erf())
