"""Argument checks and meta kernel of ``layer_norm_gelu``: ``gelu(layer_norm(x))``."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value

APPROXIMATE = ("none", "tanh")


def check(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, approximate: str = "none") -> None:
    """``x``: ``[..., N]``; ``weight``, ``bias``: ``[N]`` of ``x``'s dtype; ``approximate``: ``none``, or ``tanh``'s formula."""
    expect_tensor("x", x)
    expect_value(
        "x", x.dim() >= 1 and 0 < x.shape[-1] < 1 << 31, f"shape {list(x.shape)}", "[..., N] with 0 < N < 2^31"
    )
    for name, value in (("weight", weight), ("bias", bias)):
        expect_tensor(name, value)
        expect_same(name, value, "x", x)
        expect_shape(name, value, x.shape[-1:], "the last dimension of x")
    expect_value("eps", eps >= 0, eps, "a number that is not negative")
    expect_value("approximate", approximate in APPROXIMATE, repr(approximate), " or ".join(map(repr, APPROXIMATE)))


def meta(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, approximate: str = "none") -> Tensor:
    """Shape and dtype of ``x``."""
    return torch.empty_like(x)
