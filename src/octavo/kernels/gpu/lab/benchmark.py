"""Benchmark of one operation: its back ends beside its baselines, each as a fraction of the machine's limit.

The same code times the CPU's back ends where there is no GPU; rows always say on which device they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.compare import inputs_of
from octavo.kernels.gpu.lab.limits import Limits
from octavo.kernels.gpu.lab.timing import Timing, dispatch_overhead, measure, one_line
from octavo.kernels.operation import Benchmark, Operation, OptimisationStep, runs_on
from octavo.kernels.registry import operation

CPU_OPERATIONS, CPU_BYTES = 1 << 30, 1 << 25  # a CPU is asked for no more: seconds, not minutes
SEED = 1
DRY_RUN = "dry run"


@dataclass(frozen=True, slots=True)
class Reached:
    """One back end or baseline on one shape. ``fraction``: of the machine's limit; 0 where the limit is not known."""

    timing: Timing
    bytes_per_s: float
    operations_per_s: float
    fraction: float


@dataclass(frozen=True, slots=True)
class GoalReached:
    """``reached`` times the baseline's speed, by the back end that serves; ``None``: not measured."""

    baseline: str
    at_least: float
    reached: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One shape of one operation. ``floor_s``: no implementation can be quicker; ``serves``: the device's back end."""

    operation: str
    benchmark: str
    device: str
    limit: str
    moved_bytes: int
    operations: int
    floor_s: float
    serves: str
    backends: Mapping[str, Reached] = field(default_factory=dict)
    baselines: Mapping[str, Reached] = field(default_factory=dict)
    goals: tuple[GoalReached, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a results file."""
        return asdict(self)


def benchmarks_of(name: str) -> tuple[Benchmark, ...]:
    """``BENCHMARKS`` in ``kernels/<name>/bench.py``; empty for an operation that has none of its own."""
    found: tuple[Benchmark, ...] = _part_of(name, "bench", "BENCHMARKS")
    return found


def tiny_benchmarks(name: str) -> tuple[Benchmark, ...]:
    """A dry run's: the largest of the small test inputs, with whatever baselines need no compilation."""
    cases = [case for case in inputs_of(name) if case.small]
    sizes = [
        _bytes_of(list(case.make(torch.Generator().manual_seed(SEED), torch.device("cpu")).values())) for case in cases
    ]
    case = cases[sizes.index(max(sizes))]
    first = next(iter(benchmarks_of(name)), None)
    if first is None:
        return ()
    baselines = {key: call for key, call in first.baselines.items() if "compile" not in key}
    return (
        Benchmark(
            f"{DRY_RUN}: {case.name}", case.make, 2 * max(sizes), max(sizes), first.limit, baselines, first.goals
        ),
    )


def steps_of(name: str) -> tuple[OptimisationStep, ...]:
    """``STEPS`` in ``kernels/<name>/steps.py``; empty for an operation that has none."""
    found: tuple[OptimisationStep, ...] = _part_of(name, "steps", "STEPS")
    return found


def _part_of(name: str, file: str, constant: str) -> Any:
    module = f"octavo.kernels.{name}.{file}"
    try:
        return getattr(import_module(module), constant)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return ()


def timed_backends(op: Operation, device: torch.device) -> list[str]:
    """The one that serves ``device`` first, then the others that run there; not the optimisation steps that lead to them."""
    serves = op.by_device.get(device.type, "torch")
    steps = {step.backend for step in steps_of(op.name)}
    others = [name for name in op.backends if device.type in runs_on(name) and name not in steps]
    return list(dict.fromkeys([serves, *others]))


def run_benchmark(
    name: str, benchmark: Benchmark, limits: Limits, device: torch.device, backends: list[str] | None = None
) -> Row:
    """Time one shape. What fails is in the row's ``errors``; the rest is measured all the same."""
    op = operation(name)
    row = partial(
        Row,
        operation=name,
        benchmark=benchmark.name,
        device=limits.device,
        limit=benchmark.limit,
        moved_bytes=benchmark.moved_bytes,
        operations=benchmark.operations,
        floor_s=limits.floor_s(benchmark),
        serves=op.by_device.get(device.type, "torch"),
    )
    if device.type == "cpu" and (benchmark.operations > CPU_OPERATIONS or benchmark.moved_bytes > CPU_BYTES):
        return row(errors={"skipped": "too large for a CPU; it is for a GPU"})
    calls, errors = {}, {}
    try:
        arguments = benchmark.make(torch.Generator().manual_seed(SEED), device)
        op.check(**arguments)
    except Exception as error:
        return row(errors={"arguments": one_line(error)})
    for backend in backends or timed_backends(op, device):
        try:
            calls[f"backend {backend}"] = partial(op.backend(backend), **arguments)
        except Exception as error:  # a package that is not here
            errors[backend] = one_line(error)
    calls |= {f"baseline {key}": partial(call, **arguments) for key, call in benchmark.baselines.items()}
    timed = measure(calls, device, 0.05 if benchmark.name.startswith(DRY_RUN) else 1.0)
    errors |= {key.partition(" ")[2]: words for key, words in timed.errors.items()}
    reached = {key: _reached(benchmark, timing, limits) for key, timing in timed.times.items()}
    own = {key.partition(" ")[2]: one for key, one in reached.items() if key.startswith("backend ")}
    others = {key.partition(" ")[2]: one for key, one in reached.items() if key.startswith("baseline ")}
    found = row(backends=own, baselines=others, errors=errors)
    return row(backends=own, baselines=others, errors=errors, goals=_goals(benchmark, found, limits))


def _reached(benchmark: Benchmark, timing: Timing, limits: Limits) -> Reached:
    return Reached(
        timing,
        benchmark.moved_bytes / timing.median_s,
        benchmark.operations / timing.median_s,
        limits.floor_s(benchmark) / timing.median_s,
    )


def _goals(benchmark: Benchmark, row: Row, limits: Limits) -> tuple[GoalReached, ...]:
    found = []
    for goal in benchmark.goals:
        ours, theirs = row.backends.get(row.serves), row.baselines.get(goal.baseline)
        reached = None
        if ours is not None and theirs is not None:
            reached = theirs.timing.median_s / ours.timing.median_s
        elif ours is not None and goal.baseline not in benchmark.baselines:
            limit: float = getattr(limits, goal.baseline, 0.0)
            rate = ours.bytes_per_s if goal.baseline == "copy" else ours.operations_per_s
            reached = rate / limit if limit else None
        found.append(GoalReached(goal.baseline, goal.at_least, reached))
    return tuple(found)


def overhead(name: str, device: torch.device) -> dict[str, float]:
    """Seconds to issue one call on small test inputs: the operation, its back end without check and dispatcher, the check."""
    op, case = operation(name), next(case for case in inputs_of(name) if case.small)
    arguments = case.make(torch.Generator().manual_seed(SEED), device)
    from octavo.kernels.library import public

    calls = {
        "operation": partial(public(name), **arguments),
        "back end": partial(op.backend(op.by_device.get(device.type, "torch")), **arguments),
        "check": partial(op.check, **arguments),
    }
    for call in calls.values():
        call()
    return dispatch_overhead(calls, device)


def run_operation(name: str, limits: Limits, device: torch.device, tiny: bool = False) -> Iterator[Row]:
    """A row for each of the operation's shapes."""
    for benchmark in tiny_benchmarks(name) if tiny else benchmarks_of(name):
        yield run_benchmark(name, benchmark, limits, device)


def run_steps(name: str, limits: Limits, device: torch.device, tiny: bool = False) -> Iterator[Row]:
    """All optimisation steps of the operation side by side, on each shape."""
    steps = [step.backend for step in steps_of(name)]
    for benchmark in tiny_benchmarks(name) if tiny else benchmarks_of(name):
        yield run_benchmark(name, benchmark, limits, device, steps if device.type == "cuda" else None)


def _bytes_of(values: list[Any]) -> int:
    return sum(one.numel() * one.element_size() for one in values if isinstance(one, Tensor))
