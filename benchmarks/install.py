"""Install benchmark: `make serve` in a fresh clone to the first token, size of the base environment, start to ready side by side.

    python benchmarks/install.py [--repeats 3] [--pairs 10] [--beside FOLDER] [--out FILE.md]

Runs with any Python >= 3.11, on what is committed. The first repeat warms pip's cache and is not counted. ``--beside``: another
clone with a complete .venv, whose `octavo serve` starts in turns with this one's.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PORT = 8765
BODY = json.dumps({"prompt": "Once upon a time", "max_tokens": 1, "stream": True})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="fresh clones that count; one more goes before them")
    parser.add_argument("--pairs", type=int, default=10, help="starts of each server")
    parser.add_argument("--beside", type=Path, help="another clone with its .venv")
    parser.add_argument("--out", type=Path, help="write the page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clones = [fresh_clone(Path(folder) / str(i)) for i in range(options.repeats + 1)]
        runs = [first_token(clone, Path(folder) / f"cache-{i}") for i, clone in enumerate(clones)][1:]
        lines = [*header(), *describe_first_token(runs), *describe_size(clones[-1])]
        if options.beside is not None:
            lines += describe_starts(start_times([clones[-1], options.beside.resolve()], options.pairs))
    page = "\n".join(lines) + "\n"
    print(page)
    if options.out is not None:
        options.out.write_text(page, encoding="utf-8")


def fresh_clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    return folder


def first_token(clone: Path, cache: Path) -> dict[str, float]:
    """Seconds after `make serve`, in a clone without a .venv and a user's cache without a model."""
    words = ["make", "--no-print-directory", "serve", f"FLAGS=--port {PORT}"]
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS")
    }
    started_s = time.perf_counter()
    with ready_server(words, clone, {**environment, "OCTAVO_CACHE": str(cache)}) as seen:
        ask()
        now_s = time.perf_counter()
    return {
        "installed": seen["octavo listens"] - started_s,
        "ready": seen["ready in"] - started_s,
        "first token": now_s - started_s,
    }


def start_times(clones: list[Path], pairs: int) -> list[list[float]]:
    """Seconds from the command to the line "ready in", in turns; the model is there and packed after an uncounted round."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found: list[list[float]] = [[] for _ in clones]
    for i in range(pairs + 1):
        for times, clone in zip(found, clones, strict=True):
            started_s = time.perf_counter()
            words = [str(clone / ".venv/bin/octavo"), "serve", "--port", str(PORT)]
            with ready_server(words, clone, environment) as seen:
                if i:
                    times.append(seen["ready in"] - started_s)
    return found


@contextmanager
def ready_server(words: list[str], folder: Path, environment: dict[str, str]) -> Iterator[dict[str, float]]:
    """The times at which the lines of a start were seen; the server ends with the block."""
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    seen: dict[str, float] = {}
    try:
        for line in process.stdout:
            for mark in ("octavo listens", "ready in"):
                if line.startswith(mark):
                    seen[mark] = time.perf_counter()
            if "ready in" in seen:
                break
        else:
            raise SystemExit(f"{' '.join(words)} ended with {process.wait()} before it was ready")
        yield seen
    finally:
        os.killpg(process.pid, 15)
        process.wait()
        process.stdout.close()


def ask() -> None:
    """Returns when the first token has come."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    connection.request("POST", "/v1/completions", BODY, {"Content-Type": "application/json"})
    if not connection.getresponse().read(6).startswith(b"data:"):
        raise SystemExit("the server did not stream a token")
    connection.close()


def header() -> list[str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    return [
        "# Installation",
        "",
        f"Commit {commit.stdout.strip()}; {cpu}, {len(os.sched_getaffinity(0))} cores, {platform.system()}, Python",
        f"{platform.python_version()}, load average {os.getloadavg()[0]:.1f} at the end. Command:",
        f"`python benchmarks/install.py {' '.join(sys.argv[1:])}`. Medians, lowest and highest in brackets.",
    ]


def describe_first_token(runs: list[dict[str, float]]) -> list[str]:
    lines = [
        "",
        f"## `make serve` in a fresh clone, warm package cache, {len(runs)} times",
        "",
        "| until | s |",
        "|---|---|",
    ]
    names = {
        "installed": "the server listens: .venv made, packages installed, kernels compiled",
        "ready": "ready: the model fetched, checked, packed and loaded",
        "first token": "the first token of a request",
    }
    return [*lines, *(f"| {words} | {spread([run[name] for run in runs])} |" for name, words in names.items())]


def describe_size(clone: Path) -> list[str]:
    (packages,) = (clone / ".venv/lib").glob("python*/site-packages")
    sizes = sorted(((disk_bytes(entry), entry.name) for entry in packages.iterdir()), reverse=True)
    total = sum(size for size, _ in sizes)
    largest = ", ".join(f"{name} {size / 1e6:.0f}" for size, name in sizes[:10])
    return [
        "",
        "## Size of the base environment",
        "",
        f"{total / 1e6:.0f} MB of site-packages on disk. The largest, in MB: {largest}.",
    ]


def disk_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.lstat().st_blocks * 512 for file in files)


def describe_starts(times: list[list[float]]) -> list[str]:
    here, beside = times
    ratios = [a / b for a, b in zip(here, beside, strict=True)]
    return [
        "",
        f"## `octavo serve` to ready, {len(here)} pairs of starts in turns",
        "",
        f"This commit {spread(here)} s, the other clone {spread(beside)} s; ratio of a pair {spread(ratios)}.",
    ]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


if __name__ == "__main__":
    main()
