"""Ahead-of-time compilation of all kernels for sm_80 and sm_90: registers, shared memory and spills against a budget.

    python -m octavo.kernels.gpu.ahead [--record] [OPERATION ...]

A back end's module lists what it compiles as ``AHEAD``: ``Ahead`` for a Triton kernel; a CUDA back end's entries have the
same ``name``, ``architectures`` and ``compile``. ``budget.json`` in the operation's folder is what they may use;
``--record`` writes it anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from octavo.kernels.registry import NAMES, operation

NUM_PROCESSES = 2
SHARED_LIMITS: Mapping[int, int] = {80: 163 << 10, 90: 227 << 10}  # bytes a block can have (CUDA programming guide)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one compiled kernel takes: ``registers`` a thread, ``shared_bytes`` and ``spilled_bytes`` (local memory)."""

    registers: int
    shared_bytes: int
    spilled_bytes: int


class Entry(Protocol):
    """What ``AHEAD`` holds: kernels that are compiled without a GPU."""

    @property
    def architectures(self) -> tuple[int, ...]:
        """Those that it is compiled for: 80, 90, ..."""
        ...

    def compile(self, architecture: int) -> Mapping[str, Resources]:
        """What each kernel takes, by a name that is unique within the back end."""
        ...


@dataclass(frozen=True, slots=True)
class Ahead:
    """A Triton kernel with one set of argument types.

    ``arguments``: by name: ``"*bf16"``, ``"i32"``, ``"fp32"``; anything that is no string is a constexpr's value.
    Pointers, and the integers named in ``divisible``, are multiples of 16, as they are in real calls.
    """

    name: str
    kernel: Any
    arguments: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    divisible: tuple[str, ...] = ()
    architectures: tuple[int, ...] = (80, 90)

    def compile(self, architecture: int) -> Mapping[str, Resources]:
        """One kernel, under the entry's own name."""
        return {self.name: compile_triton(self, architecture)[1]}


def compile_triton(spec: Ahead, architecture: int) -> tuple[bytes, Resources]:
    """``spec`` for ``sm_<architecture>`` -> the cubin and what it takes. Never in Triton's interpreter."""
    from triton import compiler, knobs
    from triton.backends.compiler import GPUTarget

    if knobs.runtime.interpret:
        raise RuntimeError("Triton's interpreter compiles nothing; unset TRITON_INTERPRET")
    arguments = {name: spec.arguments[name] for name in spec.kernel.arg_names}  # attributes go by position
    constants = {name: value for name, value in arguments.items() if not isinstance(value, str)}
    signature = {name: "constexpr" if name in constants else value for name, value in arguments.items()}
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, value) in enumerate(arguments.items())
        if isinstance(value, str) and (value.startswith("*") or name in spec.divisible)
    }
    source = compiler.ASTSource(spec.kernel, signature=signature, constexprs=constants, attrs=attributes)
    built = compiler.compile(
        source,
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": spec.num_warps, "num_stages": spec.num_stages},
    )
    cubin: bytes = built.asm["cubin"]
    (used,) = resources(cubin).values()
    return cubin, Resources(used.registers, built.metadata.shared, used.spilled_bytes)


def resources(cubin: bytes) -> dict[str, Resources]:
    """By kernel name, as ``cuobjdump`` (Triton's package carries one) reads them from the cubin."""
    from triton.backends import nvidia

    tool = Path(nvidia.__path__[0]) / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        said = subprocess.run(  # noqa: S603
            [str(tool), "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    pattern = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
    return {
        name: Resources(int(registers), int(shared), int(stack) + int(local))
        for name, registers, stack, shared, local in pattern.findall(said.stdout)
    }


class Task(NamedTuple):
    """One entry to compile: ``AHEAD[place]`` of ``module``, for one architecture."""

    operation: str
    module: str
    place: int
    architecture: int


def tasks(name: str) -> Iterator[Task]:
    """Every entry in an operation's own folder, for each of its architectures.

    A back end that lies in another operation's folder (``add_rms_norm``'s in ``rms_norm``) is compiled there.
    """
    op = operation(name)
    paths = [*op.backends.values(), *filter(None, [op.backward])]
    modules = dict.fromkeys(path.partition(":")[0] for path in paths)
    for module in (one for one in modules if f".{name}." in one):
        for place, entry in enumerate(getattr(import_module(module), "AHEAD", ())):
            yield from (Task(name, module, place, architecture) for architecture in entry.architectures)


def budget_file(name: str) -> Path:
    """``{"<back end> <kernel> sm_<architecture>": {registers, shared_bytes, spilled_bytes}}``, a line each."""
    return Path(__file__).parent.parent / name / "budget.json"


def measure(names: Sequence[str]) -> dict[str, dict[str, Resources]]:
    """By operation, then by ``<back end> <kernel> sm_<architecture>``; two processes, each compiling one at a time."""
    every = [task for name in names for task in tasks(name)]
    found: dict[str, dict[str, Resources]] = {name: {} for name in names}
    with ProcessPoolExecutor(NUM_PROCESSES, mp_context=multiprocessing.get_context("fork")) as pool:
        for name, used in pool.map(_compile, every):
            twice = found[name].keys() & used.keys()
            if twice:
                raise ValueError(f"{name}: two kernels are named {min(twice)}")
            found[name] |= used
    return found


def _compile(task: Task) -> tuple[str, dict[str, Resources]]:
    name, module, place, architecture = task
    entry: Entry = import_module(module).AHEAD[place]
    backend = module.rpartition(".")[2]
    try:
        used = entry.compile(architecture)
    except Exception as error:
        raise RuntimeError(
            f"{name}: entry {place} of {module} does not compile for sm_{architecture}: {error}"
        ) from error
    return name, {f"{backend} {kernel} sm_{architecture}": one for kernel, one in used.items()}


def problems(name: str, used: Mapping[str, Resources]) -> list[str]:
    """In words: what goes beyond the budget, or is in one of the two only."""
    file = budget_file(name)
    budget = json.loads(file.read_text()) if file.exists() else {}
    found = [f"{name}: {kernel} is in budget.json but is no longer compiled" for kernel in budget.keys() - used.keys()]
    for kernel, resources in used.items():
        if kernel not in budget:
            found.append(f"{name}: {kernel} has no budget; record it and look at what it takes")
            continue
        for what, value in asdict(resources).items():
            if value > budget[kernel][what]:
                found.append(f"{name}: {kernel} takes {value} {what}, its budget is {budget[kernel][what]}")
    return found


def impossible(name: str, used: Mapping[str, Resources]) -> list[str]:
    """Kernels that no GPU of the architecture could launch."""
    return [
        f"{name}: {kernel} wants {one.shared_bytes} bytes of shared memory, the architecture has {limit}"
        for kernel, one in used.items()
        if one.shared_bytes > (limit := SHARED_LIMITS.get(int(kernel.rpartition("_")[2]), 227 << 10))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what every kernel takes; 1 if one of them takes more than it may."""
    parser = argparse.ArgumentParser(
        prog="python -m octavo.kernels.gpu.ahead", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--record", action="store_true", help="write budget.json anew")
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help="all, if none is named")
    asked = parser.parse_args(arguments)
    measured = measure(asked.operations or NAMES)
    wrong = []
    for name, used in measured.items():
        for kernel, one in used.items():
            print(
                f"{name:16} {kernel:40} {one.registers:4} registers {one.shared_bytes:7} B shared {one.spilled_bytes:5} B spilled"
            )
        wrong += impossible(name, used)
        if asked.record and used:
            rows = [f"{json.dumps(kernel)}: {json.dumps(asdict(one))}" for kernel, one in sorted(used.items())]
            budget_file(name).write_text("{\n" + ",\n".join(rows) + "\n}\n")
        wrong += problems(name, used)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
