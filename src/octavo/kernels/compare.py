"""Comparison of a back end with the float64 reference, element by element within tolerances, on poisoned memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.operation import TOLERANCES, Inputs, Operation, Tolerance, results_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """``error``: the largest, in units of what was allowed (1.0 is the limit); ``repeated``: the same bits twice."""

    operation: str
    backend: str
    case: str
    error: float
    repeated: bool
    problem: str = ""  # an exception's words

    @property
    def passed(self) -> bool:
        """Within the tolerance everywhere, the same bits twice, and no exception."""
        return not self.problem and self.error <= 1.0 and self.repeated


def inputs_of(name: str) -> tuple[Inputs, ...]:
    """``INPUTS`` in ``kernels/<name>/inputs.py``."""
    found: tuple[Inputs, ...] = import_module(f"octavo.kernels.{name}.inputs").INPUTS
    return found


def check_against_reference(op: Operation, backend: str, case: Inputs, seed: int, device: torch.device) -> Outcome:
    """One set of test inputs on one back end; an exception is an outcome as well."""
    try:
        first, arguments = _run(op, backend, case, seed, device)
        error = max(map(_error, first, _reference(op, arguments, case, seed), [case.tolerance] * len(first)))
        second = _run(op, backend, case, seed, device)[0] if case.repeatable else first
        repeated = all(torch.equal(_bits(a), _bits(b)) for a, b in zip(first, second, strict=True))
    except Exception as exception:
        return Outcome(op.name, backend, case.name, float("inf"), False, f"{type(exception).__name__}: {exception}")
    return Outcome(op.name, backend, case.name, error, repeated)


def _run(
    op: Operation, backend: str, case: Inputs, seed: int, device: torch.device
) -> tuple[list[Tensor], Mapping[str, Any]]:
    arguments = case.make(torch.Generator().manual_seed(seed), device)
    op.check(**arguments)
    with poisoned():
        returned = op.backend(backend)(**arguments)
    return results_of(arguments, returned, op.schema), arguments


def _reference(op: Operation, arguments: Mapping[str, Any], case: Inputs, seed: int) -> list[Tensor]:
    """On the CPU, from arguments made anew: the back end may have written to its own."""
    fresh = case.make(torch.Generator().manual_seed(seed), torch.device("cpu"))
    returned = op.reference(**fresh)
    return results_of(fresh, returned, op.schema)


def _error(result: Tensor, reference: Tensor, tolerance: Tolerance | None) -> float:
    """The largest difference over what is allowed; infinite for a NaN that the reference has not, or another shape."""
    if result.shape != reference.shape:
        raise ValueError(f"the result's shape is {list(result.shape)}, the reference's {list(reference.shape)}")
    if result.numel() == 0:
        return 0.0
    allowed = tolerance or TOLERANCES.get(result.dtype, Tolerance(0.0, 0.0))
    a, b = result.detach().cpu().double(), reference.detach().cpu().double()
    same = (a == b) | (a.isnan() & b.isnan())
    room = allowed.absolute + allowed.relative * b.abs()
    ratio = torch.where(same, 0.0, (a - b).abs() / room)
    return float(torch.nan_to_num(ratio, nan=float("inf")).max())


def _bits(tensor: Tensor) -> Tensor:
    """NaN equals NaN, bit for bit."""
    return tensor.reshape(-1).view(torch.uint8) if tensor.dtype.is_floating_point else tensor


@contextmanager
def poisoned() -> Iterator[None]:
    """Inside, fresh memory is NaN (integers: the largest), so that an element which nobody wrote shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic  # its flag is set on the module
    filled = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = filled
