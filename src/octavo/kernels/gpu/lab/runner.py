"""Unattended GPU runs (``scripts/gpu [PART ...]``): every operation in a child process with a time limit, results as JSON.

A kernel that reads where it must not takes its whole process down, and the results of the others with it; so the parent only
starts children, waits no longer than it may, and writes what came after every one of them. A part that is started again goes on
where it stopped. With ``--device cpu --tiny`` it is a dry run, marked as such, which proves the script and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from octavo.kernels.gpu.interpreter import use_interpreter
from octavo.kernels.gpu.lab import summary
from octavo.kernels.gpu.lab.options import Options
from octavo.kernels.gpu.lab.parts import PARTS, Part, sanitizer_words
from octavo.kernels.gpu.lab.timing import one_line
from octavo.kernels.registry import NAMES

CHILD_S = 240.0  # no operation may take longer in one part


def main(script: Path, more: Sequence[Part] = (), arguments: Sequence[str] | None = None) -> int:
    """``script``: how children are started; ``more``: parts that need what this package may not import."""
    parts = {part.name: part for part in (*PARTS, *more)}
    asked, options = _parse(parts, arguments)
    if options.device == "cpu":
        use_interpreter()
    if asked.child:
        name, _, task = asked.child.partition(":")
        Path(asked.result).write_text(json.dumps(parts[name].child(options, task)))
        return 0
    if options.device == "cuda" and not _has_gpu():
        print("scripts/gpu: torch finds no NVIDIA GPU; a dry run: --device cpu --tiny", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    names = list(parts) if asked.parts in ([], ["all"]) else asked.parts
    for name in names:
        _run_part(parts[name], options, script)
    return summary.summarise(options)


def _parse(parts: Mapping[str, Part], arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Options]:
    parser = argparse.ArgumentParser(prog="scripts/gpu", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)}, or all")
    parser.add_argument("--out", type=Path, help="docs/results/gpu/<date>-<gpu>, unless named")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: a dry run")
    parser.add_argument("--minutes", type=float, default=9.5, help="of each part (9.5)")
    parser.add_argument("--only", default="", help="operations, with commas between them")
    parser.add_argument("--fresh", action="store_true", help="do again what is already in --out")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--result", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    only = tuple(filter(None, asked.only.split(","))) or NAMES
    for word, known in (*((part, [*parts, "all"]) for part in asked.parts), *((name, NAMES) for name in only)):
        if word not in known:
            parser.error(f"unknown {word!r}; known: {', '.join(known)}")
    out = asked.out or _default_out(asked.device)
    return asked, Options(out, asked.device, asked.tiny, asked.minutes, only, asked.fresh)


def _default_out(device: str) -> Path:
    import torch

    gpu = torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else "dry-run"
    return Path("docs/results/gpu") / f"{datetime.now(UTC):%Y-%m-%d}-{gpu.lower().replace(' ', '-')}"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _run_part(part: Part, options: Options, script: Path) -> None:
    """Results are written after every task; what there was no time for is said."""
    file, started = options.out / f"{part.name}.json", time.monotonic()
    known = json.loads(file.read_text()) if file.exists() and not options.fresh else {}
    results: dict[str, Any] = known.get("results", {})
    for task in part.tasks(options):
        if task in results and "error" not in results[task]:
            continue
        left_s = 60 * options.minutes - (time.monotonic() - started)
        if left_s < 5:
            results[task] = {"error": f"not reached within {options.minutes:g} minutes; start the part again"}
        elif options.device == "cpu":
            results[task] = run_here(part, task, options)
        else:
            results[task] = run_child(part, task, options, script, min(left_s, part_limit(part)))
        print(f"{part.name} {task}: {results[task].get('error') or results[task].get('words', 'done')}", flush=True)
        whole = {"environment": summary.environment(options), "results": results}
        file.write_text(json.dumps(whole, indent=1) + "\n")


def part_limit(part: Part) -> float:
    """Parts over whole models may use all of their time for one task."""
    return CHILD_S if part in PARTS else float("inf")


def run_here(part: Part, task: str, options: Options) -> dict[str, Any]:
    """In this process: on a CPU nothing takes it down."""
    try:
        return dict(part.child(options, task))
    except Exception as error:
        return {"error": one_line(error)}


def run_child(part: Part, task: str, options: Options, script: Path, limit_s: float) -> dict[str, Any]:
    """In a process of its own, which may crash or hang."""
    wrapper, reason = part.wrapper(task) if options.device == "cuda" else ([], "")
    if wrapper is None:
        return {"skipped": reason, "words": f"skipped, {reason}"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [*wrapper, sys.executable, str(script), "--child", f"{part.name}:{task}", "--result", str(result)]
        command += ["--out", str(options.out), "--device", options.device, "--only", ",".join(options.only)]
        environment = dict(os.environ) | ({"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if wrapper else {})
        started = time.monotonic()
        try:
            done = subprocess.run(  # noqa: S603
                command + ["--tiny"] * options.tiny, env=environment, capture_output=True, text=True, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done within {limit_s:.0f} s"}
        if not result.exists():
            last = (done.stderr.strip().splitlines() or ["no words"])[-1]
            return {"error": f"exit code {done.returncode}: {last[:400]}"}
        found: dict[str, Any] = json.loads(result.read_text())
    found |= sanitizer_words(done.stdout + done.stderr) if wrapper else {}
    return found | {"seconds": round(time.monotonic() - started, 1)}
