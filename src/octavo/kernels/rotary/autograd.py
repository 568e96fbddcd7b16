"""Gradient of ``rotary`` for autograd: the same rotation backwards."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import Library, register_autograd

from octavo.kernels.library import public


def register(name: str, library: Library) -> None:
    """For ``octavo::rotary``; the angles have no gradient."""
    register_autograd(name, _backward, setup_context=_keep, lib=library)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    cos, sin = ctx.saved_tensors
    return public("rotary")(grad.contiguous(), cos, -sin), None, None
