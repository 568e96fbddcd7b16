"""`make bench-engine`: the engine's own figures, each in a process of its own.

    python benchmarks/engine.py [FIGURE ...] [--out FOLDER]

Without names all figures run (about 15 minutes on two cores). ``--out`` keeps them as JSON beside a page of text.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

from record import environment

FIGURES = {
    "equality": "greedy text against transformers in float32",
    "invariance": "the same tokens in any company",
    "batching": "continuous batching",
    "prefix_cache": "prefix cache",
    "overhead": "engine overhead",
    "startup": "start and memory",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("--out", type=Path, help="folder for engine.json and engine.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(importlib.import_module(options.one).run()))
        return
    unknown = [name for name in options.figures if name not in FIGURES]
    if unknown:
        parser.error(f"unknown figure {unknown[0]!r}; known: {', '.join(FIGURES)}")
    report({name: FIGURES[name] for name in options.figures or FIGURES}, options.out)


def report(names: dict[str, str], out: Path | None) -> None:
    machine = environment()
    lines = ["# Engine figures", "", *(f"- {key}: {value}" for key, value in machine.items())]
    print("\n".join(lines), flush=True)
    results: dict[str, object] = {"environment": machine}
    for name, title in names.items():
        figures = measure(name)
        results[name] = figures
        section = ["", f"## {title[0].upper()}{title[1:]}", "", *(f"- {line}" for line in describe(name, figures))]
        print("\n".join(section), flush=True)
        lines += section
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "engine.json").write_text(json.dumps(results, indent=1) + "\n")
        (out / "engine.md").write_text("\n".join(lines) + "\n")


def measure(name: str) -> object:
    """Run one figure in a fresh process: memory and caches of the others stay out of it."""
    done = subprocess.run([sys.executable, __file__, "--one", name], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def describe(name: str, figures: object) -> list[str]:
    lines: list[str] = importlib.import_module(name).describe(figures)
    return lines


if __name__ == "__main__":
    main()
