"""Results measured on GPUs, by operation: ``measured.json``, which ``scripts/gpu adopt`` writes from a run's results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.kernels.operation import OptimisationStep

KERNELS = Path(__file__).parents[2]
FILE = KERNELS / "gpu" / "measured.json"


@dataclass(frozen=True, slots=True)
class Measured:
    """One operation on one GPU. ``fraction``: the best that any of its shapes reaches of the machine's limit; 0: not timed."""

    gpu: str
    date: str
    commit: str
    cases_passed: int
    cases: int
    fraction: float


def measured(name: str, file: Path = FILE) -> tuple[Measured, ...]:
    """Of every GPU that the operation has been run on."""
    known: Mapping[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return tuple(
        Measured(gpu, run["date"], run["commit"], **run["operations"][name])
        for gpu, run in sorted(known.items())
        if name in run["operations"]
    )


def adopt(summary: Mapping[str, Any], file: Path = FILE) -> None:
    """Take over one run's ``summary.json``; other GPUs' entries stay."""
    known = json.loads(file.read_text()) if file.exists() else {}
    known[summary["environment"]["gpu"]] = {
        "date": summary["environment"]["date"],
        "commit": summary["environment"]["commit"],
        "operations": summary["operations"],
        "optimisation_steps": summary["optimisation_steps"],
    }
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def measured_steps(name: str, backend: str, file: Path = FILE) -> list[str]:
    """One line for each GPU and shape that an optimisation step of the operation has been timed on."""
    known: Mapping[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return [
        f"{gpu}, {row['benchmark']}: {words_of(row['backends'][backend])}"
        for gpu, run in sorted(known.items())
        for row in run["optimisation_steps"].get(name, ())
        if backend in row["backends"]
    ]


def compiled(name: str, step: OptimisationStep) -> list[str]:
    """What the compiler made of an optimisation step on Hopper from ``budget.json``, a line for each variant. No GPU is needed.

    A multiprocessor has 65,536 registers, given out 8 at a time to each of a warp's 32 threads; it holds 64 warps, 32
    blocks and 228 KiB of shared memory, the KiB that each block costs included (CUDA programming guide, compute capability 9.0).
    """
    own = f"cuda {step.kernel or name + step.backend.removeprefix('cuda')} "
    found = []
    for kernel, used in json.loads((KERNELS / name / "budget.json").read_text()).items():
        if not (kernel.startswith(own) and kernel.endswith(" sm_90")):
            continue
        warps = min(64, 65536 // (32 * 8 * -(-used["registers"] // 8)))
        shared, spilled = used["shared_bytes"], used["spilled_bytes"]
        blocks = min(32, (228 << 10) // shared) if shared else 32
        found.append(
            f"{kernel.removeprefix('cuda ')}: {used['registers']} registers a thread, at most {warps} of 64 warps; "
            f"{shared / 1024:.3g} KiB of shared memory a block, at most {blocks} blocks; {spilled or 'no'} bytes spilled"
        )
    return found


def words_of(reached: Mapping[str, Any]) -> str:
    """``812 us, 169 TFLOP/s, 68 % of the limit``, and the hardware counters if there are any."""
    rate = f"{reached['operations_per_s'] / 1e12:.3g} TFLOP/s, {reached['bytes_per_s'] / 1e9:.4g} GB/s"
    counters = "".join(f"; {name} {value}" for name, value in reached.get("counters", {}).items())
    return f"{1e6 * reached['timing']['median_s']:.4g} us, {rate}, {reached['fraction']:.0%} of the limit{counters}"
