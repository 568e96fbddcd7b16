"""Argument checks and meta kernel of ``rms_norm``: ``x / sqrt(mean(x^2) + eps) * weight`` (Zhang and Sennrich, 2019).

``add_rms_norm`` adds a residual first; ``rms_norm_backward`` has the gradients of both: with ``g = grad * weight`` and
``n = x / sqrt(mean(x^2) + eps)``,

    grad_x = (g - n mean(g n)) / sqrt(mean(x^2) + eps) (+ grad_sum),   grad_weight = sum over rows of grad * n
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_same, expect_shape, expect_tensor, expect_value


def check(x: Tensor, weight: Tensor, eps: float = 1e-6) -> None:
    """``x``: ``[..., N]``, dense from the second dimension on (a slice of a projection's heads will do).

    ``weight``: ``[N]``, or ``[H, N]`` for one weight per head, of ``x``'s dtype.
    """
    expect_tensor("x", x, contiguous=False)
    expect_tensor("weight", weight)
    expect_value("x", x.dim() >= 1 and x.shape[-1] > 0, f"shape {list(x.shape)}", "[..., N] with N > 0")
    dense = x.is_contiguous() or (x.dim() > 1 and x.stride(0) >= x[0].numel() and x[0].is_contiguous())
    expect_value("x", dense, f"strides {tuple(x.stride())}", "rows that are dense; call .contiguous()")
    expect_same("weight", weight, "x", x)
    expect_value("weight", weight.dim() in (1, 2), f"{weight.dim()} dimensions", "[N] or [H, N]")
    expect_shape("weight", weight, x.shape[x.dim() - weight.dim() :], "the last dimensions of x")
    expect_value("eps", eps >= 0, eps, "a number that is not negative")


def meta(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Shape and dtype of ``x``, contiguous."""
    return x.new_empty(x.shape)


def check_add(x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6) -> None:
    """As ``check``; ``residual`` looks like ``x``."""
    check(x, weight, eps)
    expect_tensor("x", x)
    expect_like("residual", residual, x)


def meta_add(x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Both like ``x``: the normalised sum, and the sum."""
    return torch.empty_like(x), torch.empty_like(x)


def check_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-6, grad_sum: Tensor | None = None) -> None:
    """As ``check``; ``grad`` and ``grad_sum`` look like ``x``."""
    check(x, weight, eps)
    expect_tensor("x", x)
    expect_like("grad", grad, x)
    if grad_sum is not None:
        expect_like("grad_sum", grad_sum, x)


def meta_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-6, grad_sum: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Like ``x`` and like ``weight``."""
    return torch.empty_like(x), torch.empty_like(weight)


def expect_like(name: str, value: Tensor, x: Tensor) -> None:
    """Shape, dtype and device of ``x``."""
    expect_tensor(name, value)
    expect_same(name, value, "x", x)
    expect_shape(name, value, x.shape, "the shape of x")
