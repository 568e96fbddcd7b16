"""`make bench-engine`: the engine's own figures, each in a process of its own.

    python benchmarks/engine.py [FIGURE ...] [--out FOLDER]

Without names all figures run (about 15 minutes on two cores). ``--out`` keeps them as JSON files beside a page of text.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import environment

FIGURES = {
    "equality": "Greedy text against transformers in float32",
    "invariance": "The same tokens in any company",
    "batching": "Continuous batching",
    "prefix_cache": "Prefix cache",
    "overhead": "Engine overhead",
    "startup": "Start and memory",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("--out", type=Path, help="folder for one JSON file a figure and the page engine.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(importlib.import_module(options.one).run()))
        return
    unknown = [name for name in options.figures if name not in FIGURES]
    if unknown:
        parser.error(f"unknown figure {unknown[0]!r}; known: {', '.join(FIGURES)}")
    machine = environment()
    print("\n".join(f"- {key}: {value}" for key, value in machine.items()), flush=True)
    for name in options.figures or FIGURES:
        figures = measure(name)
        print("\n".join(section(name, figures)), flush=True)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            record = {"environment": machine, "figures": figures}
            (options.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    if options.out is not None:
        write_page(options.out)


def section(name: str, figures: Any) -> list[str]:
    lines: list[str] = importlib.import_module(name).describe(figures)
    return ["", f"## {FIGURES[name]}", "", *(f"- {line}" for line in lines)]


def write_page(folder: Path) -> None:
    """``engine.md`` from all figures that the folder holds; each may be of another day, so each names its machine."""
    lines = ["# Engine figures", "", "Median (minimum .. maximum, number of runs). Written by `make bench-engine`."]
    for name in FIGURES:
        path = folder / f"{name}.json"
        if path.exists():
            record = json.loads(path.read_text())
            facts = ", ".join(f"{key} {value}" for key, value in record["environment"].items())
            lines += [*section(name, record["figures"]), "", f"Measured with: {facts}."]
    (folder / "engine.md").write_text("\n".join(lines) + "\n")


def measure(name: str) -> Any:
    """Run one figure in a fresh process: memory and caches of the others stay out of it."""
    done = subprocess.run([sys.executable, __file__, "--one", name], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
