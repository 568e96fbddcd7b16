"""LayerNorm in Triton: ``rms_norm``'s kernels with the mean taken off, forward and backward (and its prediction)."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.layer_norm import cpu
from octavo.kernels.rms_norm.triton import WIDEST, backward, forward


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """``x``: ``[..., N]``; ``weight``, ``bias``: ``[N]`` -> shape and dtype of ``x``."""
    if x.shape[-1] > WIDEST:
        return cpu.layer_norm(x, weight, bias, eps)
    return forward(x, None, weight, bias, eps, centered=True)[0]


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """The normalised sum, and the sum; both like ``x``."""
    if x.shape[-1] > WIDEST:
        return cpu.add_layer_norm(x, residual, weight, bias, eps)
    return forward(x, residual, weight, bias, eps, centered=True)


def layer_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5, grad_sum: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by ``x``, by ``weight`` and by the bias."""
    if x.shape[-1] > WIDEST:
        return cpu.layer_norm_backward(grad, x, weight, eps, grad_sum)
    grad_x, grad_weight, grad_bias = backward(grad, x, weight, grad_sum, eps, centered=True)
    return grad_x, grad_weight, torch.zeros_like(weight) if grad_bias is None else grad_bias
