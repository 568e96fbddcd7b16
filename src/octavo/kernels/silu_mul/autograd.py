"""Gradient of ``silu_mul`` for autograd, by the operation ``silu_mul_backward``."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import Library, register_autograd

from octavo.kernels.library import public


def register(name: str, library: Library) -> None:
    """For ``octavo::silu_mul``."""
    register_autograd(name, _backward, setup_context=_keep, lib=library)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.act = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return public("silu_mul_backward")(grad.contiguous(), *ctx.saved_tensors, ctx.act), None
