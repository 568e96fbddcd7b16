"""``Operation``: schema, argument checks, reference and back ends of one operation.

An operation's folder holds

    checks.py     what the arguments mean: the check that runs before any launch, and the meta kernel (shapes without data)
    reference.py  the definition, in float64 and plain torch
    operation.py  ``OPERATION``: all of this in one place
    inputs.py     ``INPUTS``: test inputs of every back end
    bench.py      ``BENCHMARKS``: shapes to time, what they move and compute, whom they are compared with
    steps.py      ``STEPS``, where the way to the fast kernel is taught in steps
    cpu.py, triton.py, cuda.py with its *.cu, native/: the back ends
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Function = Callable[..., Any]
P = ParamSpec("P")
Call = TypeVar("Call")
R = TypeVar("R")


def taking(call: Callable[P, Call]) -> Callable[[Callable[[Call], R]], Callable[P, R]]:
    """``@taking(Call) def f(call: Call)`` is called with the fields of ``Call``, so that a long list of arguments stands once."""

    def decorate(function: Callable[[Call], R]) -> Callable[P, R]:
        @wraps(function)
        def from_arguments(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(call(*args, **kwargs))

        return from_arguments

    return decorate


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, as ``torch.ops.octavo.<name>`` and for the room's own tools.

    ``schema``: torch.library's, without the name: ``(Tensor x, Tensor weight, float eps=1e-6) -> Tensor``; a tensor that is
    written to is ``Tensor(a!)``. ``check`` and ``meta`` and every back end take exactly its arguments (many: see ``taking``).
    ``backends``: by name, ``module:function`` (loaded when first used). ``by_device``: which of them serves a device type.
    ``backward``: ``module:function`` that registers gradients (called once with the operation's full name), if it has any.
    """

    name: str
    schema: str
    summary: str  # one line: the formula, or what it is for
    check: Callable[..., None]
    meta: Function
    reference: Function
    backends: Mapping[str, str]
    by_device: Mapping[str, str]
    backward: str | None = None

    def backend(self, name: str) -> Function:
        """The function itself; ``ValueError`` with the list if there is no such back end."""
        if name not in self.backends:
            raise ValueError(f"{self.name} has no back end {name!r}; it has: {', '.join(self.backends)}")
        return load(self.backends[name])


def load(path: str) -> Function:
    """``module:function`` -> the function."""
    module, _, name = path.partition(":")
    found: Function = getattr(import_module(module), name)
    return found


@dataclass(frozen=True, slots=True)
class Tolerance:
    """``|result - reference| <= absolute + relative * |reference|``, element by element."""

    absolute: float
    relative: float


TOLERANCES: Mapping[torch.dtype, Tolerance] = {
    torch.float64: Tolerance(1e-12, 1e-12),
    torch.float32: Tolerance(1e-5, 1e-5),
    torch.float16: Tolerance(1e-3, 2e-3),  # one rounding of the result is 2^-11
    torch.bfloat16: Tolerance(1e-2, 1e-2),  # one rounding of the result is 2^-8
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs that every back end has to get right.

    ``make(generator, device)`` returns the operation's arguments, fresh random data from the CPU ``generator``; what the
    operation writes to is made poisoned (NaN). ``tolerance`` by default is that of each result's dtype.
    ``small``: quick enough for Triton's interpreter, which runs a program at a time in Python.
    ``repeatable``: two runs on the same device give the same bits.
    """

    name: str
    make: Callable[[torch.Generator, torch.device], Mapping[str, Any]]
    tolerance: Tolerance | None = None
    small: bool = True
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Goal:
    """``at_least`` times the speed of ``baseline``; the baseline ``copy`` (or ``bf16``, ``fp8``) is the machine's own limit."""

    baseline: str
    at_least: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One shape to time. ``moved_bytes`` and ``operations`` are what the task needs at least, not what a kernel spends.

    ``make(generator, device)``: as in ``Inputs``; the data is random, never zeros (a GPU runs faster on zeros).
    ``baselines``: by name, functions of the same arguments, which they get by name.
    """

    name: str
    make: Callable[[torch.Generator, torch.device], Mapping[str, Any]]
    moved_bytes: int = 0
    operations: int = 0
    limit: str = "copy"  # what bounds it: copy (bytes/s), or fp32, bf16, fp8, int8 (operations/s)
    baselines: Mapping[str, Function] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True, slots=True)
class OptimisationStep:
    """One step of the optimisation (``STEPS`` in the operation's ``steps.py``), against the step before it.

    ``change``: what is done differently; ``prediction``: what should follow, with the arithmetic; written before measuring.
    ``backend``: the step's own name among the operation's back ends, so that it is checked and timed like any other.
    ``kernel``: the beginning of its name in ``budget.json``; by default the operation's name and the back end's without ``cuda``.
    """

    name: str
    change: str
    prediction: str
    backend: str
    kernel: str = ""


def runs_on(backend: str) -> tuple[str, ...]:
    """Device types of a back end, by its name: ``torch`` runs anywhere, ``native`` on CPUs, all others on NVIDIA GPUs."""
    return {"torch": ("cpu", "cuda"), "native": ("cpu",)}.get(backend, ("cuda",))


def results_of(arguments: Mapping[str, Any], returned: Any, schema: str) -> list[Tensor]:
    """Every tensor that the operation has produced: returned ones, then arguments that it wrote to (``a!`` in the schema)."""
    found = list(returned) if isinstance(returned, tuple | list) else [returned]
    tensors = [one for one in found if isinstance(one, Tensor)]
    return tensors + [arguments[name] for name in written(schema)]


def written(schema: str) -> list[str]:
    """Names of the arguments that the schema marks as written to."""
    parts = schema[schema.index("(") + 1 : schema.rindex("->")].split(",")
    return [part.split("=")[0].split()[-1].rstrip(") ") for part in parts if "!)" in part]
