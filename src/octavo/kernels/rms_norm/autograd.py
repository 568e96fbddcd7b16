"""Gradients of ``rms_norm`` and ``add_rms_norm`` for autograd, both by ``rms_norm_backward``."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import Library, register_autograd

from octavo.kernels.library import public


def register(name: str, library: Library) -> None:
    """For ``octavo::rms_norm``."""
    register_autograd(name, _backward, setup_context=_keep, lib=library)


def register_add(name: str, library: Library) -> None:
    """For ``octavo::add_rms_norm``."""
    register_autograd(name, _backward_add, setup_context=_keep_add, lib=library)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    return *public("rms_norm_backward")(grad.contiguous(), x.contiguous(), weight, ctx.eps), None


def _keep_add(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.eps = inputs[3]
    ctx.save_for_backward(output[1], inputs[2])


def _backward_add(ctx: Any, grad: Tensor, grad_sum: Tensor) -> tuple[Tensor | None, ...]:
    summed, weight = ctx.saved_tensors
    grad_x, grad_weight = public("rms_norm_backward")(grad.contiguous(), summed, weight, ctx.eps, grad_sum.contiguous())
    return grad_x, grad_x, grad_weight, None
