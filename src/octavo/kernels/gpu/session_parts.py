"""What each part of a GPU session does for one operation, in a process of its own, and the summary of them all."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.kernels.registry import operation

if TYPE_CHECKING:
    from octavo.kernels.gpu.benchmark import Row
    from octavo.kernels.gpu.limits import Limits
    from octavo.kernels.gpu.session import Options

SEED = 20261121


def check(options: Options, name: str) -> dict[str, Any]:
    """Every case on every back end of the device; each twice, for the same bits."""
    return _check(options, name, small=options.tiny)


def small_cases(options: Options, task: str) -> dict[str, Any]:
    """The sanitizer's: small cases of our own kernels, once."""
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

    from octavo.kernels.gpu.benchmark import overhead, run_operation
    from octavo.kernels.gpu.limits import measure_limits

    device = torch.device(options.device)
    if name == "limits":
        limits = measure_limits(device, size=64, copy_bytes=1 << 20) if options.tiny else measure_limits(device)
        return {
            "limits": asdict(limits),
            "words": f"copy {limits.copy / 1e12:.2f} TB/s, bf16 {limits.bf16 / 1e12:.0f} TFLOP/s",
        }
    rows = list(run_operation(name, _limits(options), device, options.tiny))
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


def _limits(options: Options) -> Limits:
    from octavo.kernels.gpu.limits import Limits

    file = options.out / "bench.json"
    known = json.loads(file.read_text())["results"].get("limits", {}) if file.exists() else {}
    return Limits(**known["limits"]) if "limits" in known else Limits(options.device)


def with_ladder(names: Sequence[str]) -> list[str]:
    """Operations that have one."""
    from octavo.kernels.gpu.benchmark import steps_of

    return [name for name in names if steps_of(name)]


def ladder(options: Options, name: str) -> dict[str, Any]:
    """All steps beside each other, on each shape."""
    import torch

    from octavo.kernels.gpu.benchmark import run_ladder

    rows = [row.to_dict() for row in run_ladder(name, _limits(options), torch.device(options.device), options.tiny)]
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
    from octavo.kernels.gpu.tune import tune as search

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


def environment(options: Options) -> dict[str, Any]:
    """What a result has to carry."""
    import torch

    on_gpu = options.device == "cuda" and torch.cuda.is_available()
    try:
        from triton import __version__ as triton_version
    except ImportError:
        triton_version = "none"
    return {
        "dry_run": options.tiny or not on_gpu,
        "gpu": torch.cuda.get_device_name() if on_gpu else "none",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "commit": _said("git", "rev-parse", "--short=12", "HEAD"),
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if on_gpu else "none",
        "torch": torch.__version__,
        "triton": triton_version,
        "cuda": torch.version.cuda or "none",
        "python": platform.python_version(),
        "command": "scripts/gpu" + (" --tiny" if options.tiny else ""),
    }


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def summarise(options: Options) -> int:
    """Write ``summary.json`` and the figure from all parts in ``out``, print the table; 1 if anything failed."""
    parts = {
        file.stem: json.loads(file.read_text())["results"]
        for file in options.out.glob("*.json")
        if file.stem != "summary"
    }
    checks, benches = parts.get("check", {}), parts.get("bench", {})
    operations, failed = {}, []
    for part, results in parts.items():
        failed += [f"{part} {task}: {one['error']}" for task, one in results.items() if "error" in one]
    for name, one in checks.items():
        failed += [
            f"check {name}: {row['backend']} {row['case']}: {row['problem'] or row['error']}"
            for row in one.get("failures", ())
        ]
        rows = benches.get(name, {}).get("rows", ())
        reached = [row["backends"][row["serves"]]["fraction"] for row in rows if row["serves"] in row["backends"]]
        tested = one.get("backends", {}).values()
        operations[name] = {
            "cases_passed": sum(row["passed"] for row in tested),
            "cases": sum(row["cases"] for row in tested),
            "fraction": max(reached, default=0.0),
        }
    ladders = {name: one["rows"] for name, one in parts.get("ladder", {}).items() if "rows" in one}
    whole = {"environment": environment(options), "operations": operations, "ladders": ladders, "failed": failed}
    (options.out / "summary.json").write_text(json.dumps(whole, indent=1) + "\n")
    if studied := [row for one in parts.get("compile-study", {}).values() for row in one.get("rows", ())]:
        from octavo.kernels.gpu import compile_study

        facts = {name: str(value) for name, value in environment(options).items()}
        (options.out / "compile-study.md").write_text(compile_study.page(facts, studied))
    _draw(benches, options)
    _print(operations, benches, failed, options)
    return 1 if failed else 0


def _draw(benches: Mapping[str, Any], options: Options) -> None:
    from octavo.kernels.gpu.roofline import draw
    from octavo.kernels.gpu.timing import one_line

    rows = [row for one in benches.values() for row in one.get("rows", ())]
    try:
        if rows:
            draw(
                [from_dict(row) for row in rows],
                _limits(options),
                options.out / "roofline.png",
                "dry run" if options.tiny else "",
            )
    except Exception as error:  # a figure is no reason to lose the numbers
        print(f"no figure: {one_line(error)}")


def from_dict(row: Mapping[str, Any]) -> Row:
    """The inverse of ``Row.to_dict``."""
    from octavo.kernels.gpu.benchmark import GoalReached, Reached, Row
    from octavo.kernels.gpu.timing import Timing

    def reached(found: Mapping[str, Any]) -> dict[str, Reached]:
        return {name: Reached(**{**one, "timing": Timing(**one["timing"])}) for name, one in found.items()}

    both = {"backends": reached(row["backends"]), "baselines": reached(row["baselines"])}
    return Row(**{**row, **both, "goals": tuple(GoalReached(**goal) for goal in row["goals"])})


def _print(operations: Mapping[str, Any], benches: Mapping[str, Any], failed: Sequence[str], options: Options) -> None:
    print(f"\n{'DRY RUN: ' if options.tiny else ''}{options.out}")
    for name, one in operations.items():
        print(f"{name:22} {one['cases_passed']:4}/{one['cases']:<4} cases   {one['fraction']:6.1%} of the limit")
        for row in benches.get(name, {}).get("rows", ()):
            for goal in row["goals"]:
                if goal["reached"] is None or goal["reached"] < goal["at_least"]:
                    reached = "not measured" if goal["reached"] is None else f"{goal['reached']:.2f}"
                    print(
                        f"  goal missed: {row['benchmark']}: {goal['at_least']:g} x {goal['baseline']}, reached {reached}"
                    )
    for words in failed:
        print(f"FAILED {words}")


def adopt(folder: Path, kernels: Path) -> list[Path]:
    """Take a run's summary and tuned configurations into the package's data; the files that were written."""
    from octavo.kernels.gpu import measured

    summary = json.loads((folder / "summary.json").read_text())
    if summary["environment"]["dry_run"]:
        raise ValueError(f"{folder} is a dry run: nothing in it was measured on a GPU")
    measured.adopt(summary, kernels / "gpu" / "measured.json")
    written = [kernels / "gpu" / "measured.json"]
    tuning_file = folder / "tune.json"
    results = json.loads(tuning_file.read_text())["results"] if tuning_file.exists() else {}
    for name, one in results.items():
        if one.get("tuned"):
            file = kernels / name / "tuned.json"
            known = json.loads(file.read_text()) if file.exists() else {}
            known[summary["environment"]["gpu"]] = one["tuned"]
            file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            written.append(file)
    return written
