"""Operations registered as ``torch.ops.octavo.*``, and the one place where a call finds the back end of its device.

Registered with a meta kernel and gradients, so that autograd and torch.compile see through them. ``Library.define`` and ``impl``
rather than ``custom_op``: the same guarantees with a few microseconds less on each call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, register_fake

from octavo.kernels.operation import Function, Operation, load
from octavo.kernels.registry import operation

DISPATCH_KEYS = {"cpu": "CPU", "cuda": "CUDA"}


@cache
def public(name: str) -> Function:
    """``octavo.kernels.ops.<name>``; registered with torch when first asked for."""
    register(name)
    return dispatch(operation(name), getattr(torch.ops.octavo, name))


def dispatch(op: Operation, registered: Function) -> Function:
    """A function of the operation's arguments that checks them and calls the back end of the first one's device.

    In inference mode it does so itself: torch's dispatcher costs 4 us a call for gradients and tracing that nobody wants there.
    Nor are torch's own operations checked there (another 2 us): they refuse what would read outside of memory by themselves.
    Whatever else comes (a tracer's tensors, a device without a back end, names for all arguments) is ``registered``'s.
    """
    by_device = {
        device: op.backend(backend) if backend == "torch" else _checked(op, backend)
        for device, backend in op.by_device.items()
    }

    on_cpu = by_device.get("cpu")  # ``device.type`` alone takes longer than the rest of the call

    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling() and args and type(args[0]) is Tensor and torch.is_inference_mode_enabled():
            serving = on_cpu if args[0].is_cpu else by_device.get(args[0].device.type)
            if serving is not None:
                return serving(*args, **kwargs)
        return registered(*args, **kwargs)

    return call


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
    check, function = op.check, None

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal function
        check(*args, **kwargs)
        if function is None:
            function = op.backend(backend)
        return function(*args, **kwargs)

    return run


def _meta(op: Operation) -> Function:
    def run(*args: Any, **kwargs: Any) -> Any:
        op.check(*args, **kwargs)
        return op.meta(*args, **kwargs)

    return run
