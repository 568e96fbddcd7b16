"""Argument checks and meta kernel of ``fused_gemm``: ``activation(a @ b + bias)``, summed in float32 and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value

ACTIVATIONS = ("none", "gelu", "gelu_tanh", "silu")
DTYPES = (torch.bfloat16, torch.float16)


def check(a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none") -> None:
    """``a``: ``[M, K]``, ``b``: ``[K, N]``, ``bias``: ``[N]`` or none, all bfloat16 or all float16, contiguous."""
    expect_tensor("a", a, DTYPES)
    expect_tensor("b", b, DTYPES)
    expect_value("a", a.dim() == 2, f"shape {list(a.shape)}", "[M, K]")
    expect_same("b", b, "a", a)
    expect_shape("b", b, (a.shape[1], None), "[K, N] with the K of a")
    for name, value in (("a", a), ("b", b)):
        expect_value(name, max(value.shape) < 1 << 31, f"shape {list(value.shape)}", "sizes below 2^31")
    if bias is not None:
        expect_tensor("bias", bias, DTYPES)
        expect_same("bias", bias, "a", a)
        expect_shape("bias", bias, b.shape[1:], "[N] with the N of b")
    expect_value("activation", activation in ACTIVATIONS, repr(activation), " or ".join(map(repr, ACTIVATIONS)))


def meta(a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """``[M, N]`` of ``a``'s dtype."""
    return a.new_empty((a.shape[0], b.shape[1]))
