"""Float64 reference of ``silu_mul``: ``act(gate) * up``; gradients by autograd."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def silu_mul_reference(x: Tensor, act: str = "silu") -> Tensor:
    """``x``: ``[..., 2 I]``, the gates then the ups -> float64 ``[..., I]``. ``act``: ``silu`` or ``gelu_tanh``."""
    gate, up = x.double().chunk(2, -1)
    if act == "silu":
        return gate / (1 + torch.exp(-gate)) * up
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    return 0.5 * gate * (1 + torch.tanh(inner)) * up


def silu_mul_backward_reference(grad: Tensor, x: Tensor, act: str = "silu") -> Tensor:
    """The gradient of ``sum(grad * silu_mul(x))``."""
    x = x.double().requires_grad_()
    return torch.autograd.grad(silu_mul_reference(x, act), x, grad.double())[0]
