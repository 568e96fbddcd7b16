"""The parts of an unattended GPU run: what check, bench, steps, concurrency, sanitizer and tune do for one operation."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from octavo.kernels.gpu.lab.options import Options
from octavo.kernels.registry import operation

if TYPE_CHECKING:
    from octavo.kernels.gpu.lab.benchmark import Row

SEED = 20261121
SANITIZERS = ("memcheck", "racecheck")


@dataclass(frozen=True, slots=True)
class Part:
    """``child`` does one of ``tasks`` in its own process and returns what goes into ``<name>.json`` under the task's name.

    ``wrapper``: the command that the child's command is started under, or ``None`` with the reason if that is not at hand.
    """

    name: str
    tasks: Callable[[Options], Sequence[str]]
    child: Callable[[Options, str], Mapping[str, Any]]
    wrapper: Callable[[str], tuple[list[str] | None, str]] = lambda task: ([], "")


def check(options: Options, name: str) -> dict[str, Any]:
    """All test inputs on every back end of the device; each twice, for the same bits."""
    return _check(options, name, small=options.tiny)


def small_inputs(options: Options, task: str) -> dict[str, Any]:
    """The sanitizer's: small test inputs of our own kernels, once."""
    return _check(options, task.split()[-1], small=True, ours=True)


def _check(options: Options, name: str, small: bool, ours: bool = False) -> dict[str, Any]:
    import torch

    from octavo.kernels.compare import check_against_reference, inputs_of
    from octavo.kernels.operation import runs_on

    op, device, rows, failures = operation(name), torch.device(options.device), {}, []
    for backend in op.backends:
        if options.device not in runs_on(backend) or (ours and backend == "torch" and options.device == "cuda"):
            continue
        cases = [case for case in inputs_of(name) if case.small or not small]
        outcomes = [check_against_reference(op, backend, case, SEED, device) for case in cases]
        failures += [asdict(one) for one in outcomes if not one.passed]
        passed = [one for one in outcomes if one.passed]
        worst = max((one.error for one in passed), default=0.0)
        rows[backend] = {"cases": len(outcomes), "passed": len(passed), "worst_error": worst}
    words = ", ".join(f"{backend} {row['passed']}/{row['cases']}" for backend, row in rows.items())
    return {"backends": rows, "failures": failures, "serves": op.by_device[options.device], "words": words}


def bench(options: Options, name: str) -> dict[str, Any]:
    """The machine's limits, or one operation's rows and what it costs to issue it."""
    import torch

    from octavo.kernels.gpu.lab.benchmark import overhead, run_operation
    from octavo.kernels.gpu.lab.limits import measure_limits, read_limits

    device = torch.device(options.device)
    if name == "limits":
        limits = measure_limits(device, size=64, copy_bytes=1 << 20) if options.tiny else measure_limits(device)
        return {
            "limits": asdict(limits),
            "words": f"copy {limits.copy / 1e12:.2f} TB/s, bf16 {limits.bf16 / 1e12:.0f} TFLOP/s",
        }
    rows = list(run_operation(name, read_limits(options.out, options.device), device, options.tiny))
    return {
        "rows": [row.to_dict() for row in rows],
        "dispatch_s": overhead(name, device),
        "words": "; ".join(map(_row_words, rows)),
    }


def _row_words(row: Row) -> str:
    served = row.backends.get(row.serves)
    return (
        f"{row.benchmark} {served.fraction:.0%}" if served else f"{row.benchmark} {next(iter(row.errors.values()), '')}"
    )


def with_steps(names: Sequence[str]) -> list[str]:
    """Those of ``names`` that have optimisation steps."""
    from octavo.kernels.gpu.lab.benchmark import steps_of

    return [name for name in names if steps_of(name)]


def steps(options: Options, name: str) -> dict[str, Any]:
    """All optimisation steps side by side, on each shape."""
    import torch

    from octavo.kernels.gpu.lab.benchmark import run_steps
    from octavo.kernels.gpu.lab.limits import read_limits

    rows = [
        row.to_dict()
        for row in run_steps(name, read_limits(options.out, options.device), torch.device(options.device), options.tiny)
    ]
    return {"rows": rows, "words": f"{len(rows)} shapes"}


def concurrency(options: Options, _: str) -> dict[str, Any]:
    """Ways to run many small products, beside each other."""
    import torch

    from octavo.kernels.fused_gemm.concurrency import SHAPES, TINY, study

    device = torch.device(options.device)
    rows = [row for shape in (TINY if options.tiny else SHAPES) for row in study(shape, device)]
    failed = [f"{row['way']}: {row['error']}" for row in rows if "error" in row]
    words = ", ".join(f"{row['way']} {1e6 * row['median_s']:.0f} us" for row in rows if "error" not in row)
    return {"rows": rows, "words": words} | ({"error": "; ".join(failed)} if failed else {})


def tune(options: Options, name: str) -> dict[str, Any]:
    """Candidates beside the default; the winners in the form of ``tuned.json``."""
    import torch

    from octavo.kernels.gpu import tuning
    from octavo.kernels.gpu.lab.tune import tune as search

    if options.tiny:
        return {"found": [], "tuned": {}, "words": "not in a dry run"}
    found = list(search(name, torch.device(options.device)))
    tuned = {one.key: tuning.write(one.config) for one in found if one.config is not None}
    words = ", ".join(f"{one.key} {one.speedup:.2f}x" for one in found)
    return {"found": [asdict(one) for one in found], "tuned": tuned, "words": words or "nothing to choose"}


def sanitizer(task: str) -> tuple[list[str] | None, str]:
    """compute-sanitizer's command line for ``<tool> <operation>``."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None:
        return None, "compute-sanitizer is not on this machine"
    return [tool, "--tool", task.split()[0], "--target-processes", "application-only"], ""


def sanitizer_words(said: str) -> dict[str, Any]:
    """Its verdict, out of what it printed; an error in our own words if there is none (a device that it does not support)."""
    counts = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards?)", said)
    if not counts or "not supported" in said:
        last = next(
            (line for line in said.splitlines() if line.startswith("=========") and len(line) > 12), "no verdict"
        )
        return {"error": f"the sanitizer gave no verdict: {last[:200]}"}
    number = sum(map(int, counts))
    found = {"num_errors": number, "words": f"{number} errors"}
    return found | ({"error": f"{number} errors", "report": said[-4000:]} if number else {})


PARTS: tuple[Part, ...] = (
    Part("check", lambda options: options.only, check),
    Part("bench", lambda options: ("limits", *options.only), bench),
    Part("steps", lambda options: with_steps(options.only), steps),
    Part("concurrency", lambda options: [one for one in options.only if one == "fused_gemm"], concurrency),
    Part(
        "sanitizer",
        lambda options: [f"{tool} {name}" for tool in SANITIZERS for name in options.only],
        small_inputs,
        sanitizer,
    ),
    Part("tune", lambda options: options.only, tune),
)
