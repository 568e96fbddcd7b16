"""Argument checks and meta kernel of ``layer_norm``: ``(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`` (Ba et al., 2016).

``add_layer_norm`` adds a residual first; ``layer_norm_backward`` holds the gradients of both: with ``g = grad * weight`` and
``n = (x - mean(x)) / sqrt(var(x) + eps)``,

    grad_x = (g - mean(g) - n mean(g n)) / sqrt(var(x) + eps) (+ grad_sum)
    grad_weight = sum over rows of grad * n,   grad_bias = sum over rows of grad
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor
from octavo.kernels.rms_norm.checks import check as check_rms_norm
from octavo.kernels.rms_norm.checks import expect_like


def check(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> None:
    """``x``: ``[..., N]``, its rows dense; ``weight``, ``bias``: ``[N]`` of ``x``'s dtype."""
    check_rms_norm(x, weight, eps)
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None:
            expect_tensor(name, vector)
            expect_same(name, vector, "x", x)
            expect_shape(name, vector, x.shape[-1:], "the last dimension of x")


def meta(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Shape and dtype of ``x``."""
    return torch.empty_like(x)


def check_add(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> None:
    """As ``check``; ``residual`` looks like ``x``."""
    check(x, weight, bias, eps)
    expect_like("residual", residual, x)


def meta_add(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Both like ``x``: the normalised sum, and the sum."""
    return torch.empty_like(x), torch.empty_like(x)


def check_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5, grad_sum: Tensor | None = None) -> None:
    """As ``check``; ``grad`` and ``grad_sum`` look like ``x``."""
    check(x, weight, None, eps)
    expect_like("grad", grad, x)
    if grad_sum is not None:
        expect_like("grad_sum", grad_sum, x)


def meta_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5, grad_sum: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Like ``x``, like ``weight`` and like the bias."""
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
