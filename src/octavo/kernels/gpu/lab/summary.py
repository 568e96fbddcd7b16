"""The summary of an unattended GPU run: environment, results table, roofline plot, and their adoption as package data."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.kernels.gpu.lab.options import Options

if TYPE_CHECKING:
    from octavo.kernels.gpu.lab.benchmark import Row


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
    """What a command prints; ``unknown`` if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def summarise(options: Options) -> int:
    """Write ``summary.json`` and the roofline plot from all parts in ``out``, print the table; 1 if anything failed."""
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
    steps = {name: one["rows"] for name, one in parts.get("steps", {}).items() if "rows" in one}
    whole = {
        "environment": environment(options),
        "operations": operations,
        "optimisation_steps": steps,
        "failed": failed,
    }
    (options.out / "summary.json").write_text(json.dumps(whole, indent=1) + "\n")
    if studied := [row for one in parts.get("compile-study", {}).values() for row in one.get("rows", ())]:
        from octavo.kernels.gpu.lab import compile_study

        facts = {name: str(value) for name, value in environment(options).items()}
        (options.out / "compile-study.md").write_text(compile_study.page(facts, studied))
    _draw(benches, options)
    _print(operations, benches, failed, options)
    return 1 if failed else 0


def _draw(benches: Mapping[str, Any], options: Options) -> None:
    from octavo.kernels.gpu.lab.limits import read_limits
    from octavo.kernels.gpu.lab.roofline import draw
    from octavo.kernels.gpu.lab.timing import one_line

    rows = [row for one in benches.values() for row in one.get("rows", ())]
    try:
        if rows:
            draw(
                [from_dict(row) for row in rows],
                read_limits(options.out, options.device),
                options.out / "roofline.png",
                "dry run" if options.tiny else "",
            )
    except Exception as error:  # a plot is no reason to lose the numbers
        print(f"no plot: {one_line(error)}")


def from_dict(row: Mapping[str, Any]) -> Row:
    """The inverse of ``Row.to_dict``."""
    from octavo.kernels.gpu.lab.benchmark import GoalReached, Reached, Row
    from octavo.kernels.gpu.lab.timing import Timing

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
    from octavo.kernels.gpu.lab import measured

    summary = json.loads((folder / "summary.json").read_text())
    if summary["environment"]["dry_run"]:
        raise ValueError(f"{folder} is a dry run: nothing in it was measured on a GPU")
    measured.adopt(summary, kernels / measured.FILE.relative_to(measured.KERNELS))
    written = [kernels / measured.FILE.relative_to(measured.KERNELS)]
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
