"""Compile every kernel for an architecture without having one: registers, shared memory and spills, held to a budget.

A Triton back end lists its kernels as ``AHEAD: tuple[Ahead, ...]`` in ``triton.py``, a CUDA back end its sources and
entry points as ``AHEAD: tuple[CudaAhead, ...]`` in ``cuda.py``; ``budget.json`` in the operation's folder is what they may use.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True, slots=True)
class Resources:
    """What one compiled kernel takes: ``registers`` a thread, ``shared_bytes`` and ``spilled_bytes`` (local memory)."""

    registers: int
    shared_bytes: int
    spilled_bytes: int


def compile_triton(spec: Ahead, architecture: int) -> tuple[bytes, Resources]:
    """``spec`` for ``sm_<architecture>`` -> the cubin and what it takes. Never in Triton's interpreter."""
    from triton import compiler
    from triton.backends.compiler import GPUTarget

    constants = {name: value for name, value in spec.arguments.items() if not isinstance(value, str)}
    signature = {name: "constexpr" if name in constants else value for name, value in spec.arguments.items()}
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, value) in enumerate(spec.arguments.items())
        if isinstance(value, str) and (value.startswith("*") or name in spec.divisible)
    }
    source = compiler.ASTSource(spec.kernel, signature=signature, constexprs=constants, attrs=attributes)
    built = compiler.compile(
        source,
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": spec.num_warps, "num_stages": spec.num_stages},
    )
    cubin: bytes = built.asm["cubin"]
    used = resources(cubin)
    return cubin, Resources(
        next(iter(used.values())).registers, built.metadata.shared, next(iter(used.values())).spilled_bytes
    )


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
