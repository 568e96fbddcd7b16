"""Operations as ``torch.ops.octavo.*``: defined, with a meta kernel and gradients, so that torch.compile sees through them.

``Library.define`` and ``impl`` rather than ``custom_op``: the same guarantees with a few microseconds less on each call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.library import Library, register_fake

from octavo.kernels.operation import Function, Operation, load
from octavo.kernels.registry import operation

DISPATCH_KEYS = {"cpu": "CPU", "cuda": "CUDA"}


def public(name: str) -> Function:
    """``torch.ops.octavo.<name>``, registered when first asked for."""
    register(name)
    found: Function = getattr(torch.ops.octavo, name)
    return found


@cache
def _library() -> Library:
    """Lives as long as the process."""
    return Library("octavo", "FRAGMENT")  # type: ignore[no-untyped-call]


@cache
def register(name: str) -> None:
    """Define the operation ``name`` and its back ends; a second call does nothing."""
    op, library = operation(name), _library()
    library.define(op.name + op.schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))  # type: ignore[no-untyped-call]
    for device, backend in op.by_device.items():
        library.impl(op.name, _checked(op, backend), DISPATCH_KEYS[device])  # type: ignore[no-untyped-call]
    register_fake(f"octavo::{name}", _meta(op), lib=library)
    if op.backward is not None:
        load(op.backward)(f"octavo::{name}", library)


def _checked(op: Operation, backend: str) -> Function:
    """The back end behind the operation's check; loaded at its first call, so that nobody pays for what he does not use."""
    function: Function | None = None

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal function
        op.check(*args, **kwargs)
        if function is None:
            function = op.backend(backend)
        return function(*args, **kwargs)

    return run


def _meta(op: Operation) -> Function:
    def run(*args: Any, **kwargs: Any) -> Any:
        op.check(*args, **kwargs)
        return op.meta(*args, **kwargs)

    return run
