"""Argument checks and meta kernel of ``silu_mul``: ``act(gate) * up``, where ``x`` holds the gates, then the ups.

``silu``: ``g / (1 + exp(-g))`` (Shazeer, 2020); ``gelu_tanh``: ``g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3)))``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value

ACTS = ("silu", "gelu_tanh")


def check(x: Tensor, act: str = "silu") -> None:
    """``x``: ``[..., 2 I]``, contiguous; ``act``: one of ``ACTS``."""
    expect_tensor("x", x)
    expect_value("x", x.dim() >= 1 and x.shape[-1] % 2 == 0, f"shape {list(x.shape)}", "[..., 2 I]: gates, then ups")
    expect_value("act", act in ACTS, repr(act), " or ".join(ACTS))


def meta(x: Tensor, act: str = "silu") -> Tensor:
    """``[..., I]``."""
    return x.new_empty(*x.shape[:-1], x.shape[-1] // 2)


def check_backward(grad: Tensor, x: Tensor, act: str = "silu") -> None:
    """As ``check``; ``grad``: ``[..., I]``."""
    check(x, act)
    expect_tensor("grad", grad)
    expect_same("grad", grad, "x", x)
    expect_shape("grad", grad, (*x.shape[:-1], x.shape[-1] // 2), "half of x")


def meta_backward(grad: Tensor, x: Tensor, act: str = "silu") -> Tensor:
    """Shape and dtype of ``x``."""
    return torch.empty_like(x)
