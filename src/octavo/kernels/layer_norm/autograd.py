"""Gradients of ``layer_norm`` and ``add_layer_norm`` for autograd, both by ``layer_norm_backward``."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import Library, register_autograd

from octavo.kernels.library import public


def register(name: str, library: Library) -> None:
    """For ``octavo::layer_norm``."""
    register_autograd(name, _backward, setup_context=_keep, lib=library)


def register_add(name: str, library: Library) -> None:
    """For ``octavo::add_layer_norm``."""
    register_autograd(name, _backward_add, setup_context=_keep_add, lib=library)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.eps = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = public("layer_norm_backward")(grad.contiguous(), x, weight, ctx.eps)
    return grad_x, grad_weight, grad_bias if ctx.has_bias else None, None


def _keep_add(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, weight, bias, ctx.eps = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(output[1], weight)


def _backward_add(ctx: Any, grad: Tensor, grad_sum: Tensor) -> tuple[Tensor | None, ...]:
    summed, weight = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = public("layer_norm_backward")(
        grad.contiguous(), summed, weight, ctx.eps, grad_sum.contiguous()
    )
    return grad_x, grad_x, grad_weight, grad_bias if ctx.has_bias else None, None
