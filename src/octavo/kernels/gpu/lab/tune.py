"""Search of tile configurations: every candidate of a back end timed on the benchmark shapes, the faster ones kept.

What is found goes into this user's cache folder (``tuning.user_file``), or as data into ``kernels/<op>/tuned.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from octavo.kernels.gpu import tuning
from octavo.kernels.gpu.lab.benchmark import SEED, benchmarks_of
from octavo.kernels.gpu.lab.limits import device_name
from octavo.kernels.gpu.lab.timing import measure
from octavo.kernels.operation import Benchmark, Operation
from octavo.kernels.registry import operation

WORTH = 1.02  # times the default's speed: less is noise


@dataclass(frozen=True, slots=True)
class Found:
    """For one class of shapes. ``speedup``: over the default; ``config``: ``None`` if the default is best."""

    key: str
    benchmark: str
    config: tuning.Config | None
    speedup: float
    num_candidates: int


def tune(name: str, device: torch.device) -> Iterator[Found]:
    """One result for each benchmark shape of the back end that serves ``device``; nothing if it has no candidates."""
    op = operation(name)
    backend = op.by_device.get(device.type, "torch")
    module = import_module(op.backends[backend].partition(":")[0])
    if not hasattr(module, "configs"):
        return
    done: set[str] = set()
    for benchmark in benchmarks_of(name):
        found = _tune_shape(op, backend, benchmark, device)
        if found is not None and found.key not in done:
            done.add(found.key)
            yield found


def _tune_shape(op: Operation, backend: str, benchmark: Benchmark, device: torch.device) -> Found | None:
    """The default and all candidates in turns, on the same data."""
    function = op.backend(backend)
    module = import_module(op.backends[backend].partition(":")[0])
    arguments = benchmark.make(torch.Generator().manual_seed(SEED), device)
    with tuning.trial(op.name) as asked:
        function(**arguments)
    if not asked:
        return None  # this shape has nothing to choose
    key, default = asked[0]
    candidates: dict[str, tuning.Config | None] = {"default": None}
    for config in module.configs(**arguments):
        if config != default:
            candidates[json.dumps(tuning.write(config))] = config
    calls = {
        words: partial(_run, op.name, config or default, function, arguments) for words, config in candidates.items()
    }
    times = measure(calls, device, budget_s=0.05 * len(calls)).times  # one that cannot be launched is left out
    best = min(times, key=lambda words: times[words].median_s)
    speedup = times["default"].median_s / times[best].median_s
    return Found(key, benchmark.name, candidates[best] if speedup >= WORTH else None, speedup, len(candidates))


def _run(name: str, config: tuning.Config, function: Any, arguments: Any) -> Any:
    with tuning.trial(name, config):
        return function(**arguments)


def save(name: str, found: list[Found], device: torch.device, file: Path | None = None) -> Path:
    """Merge into ``file`` (by default this user's); other GPUs' and other shapes' entries stay."""
    file = file or tuning.user_file(name)
    known = json.loads(file.read_text()) if file.exists() else {}
    entries = known.setdefault(device_name(device), {})
    for one in found:
        entries.pop(one.key, None)
        if one.config is not None:
            entries[one.key] = tuning.write(one.config)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    tuning.forget()
    return file
