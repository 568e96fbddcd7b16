"""Benchmark record: machine, commit, measured values with their spread; printed and stored as JSON."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum: what a noisy machine can honestly say."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def show(value: dict[str, float], digits: int = 2, unit: str = "") -> str:
    return f"{value['median']:.{digits}f}{unit} ({value['min']:.{digits}f} .. {value['max']:.{digits}f}, n={value['runs']:.0f})"


def environment() -> dict[str, Any]:
    """Hardware, commit and versions of this run. Torch is imported here only."""
    import torch

    from octavo.hardware import detect

    hardware = detect()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "cpu": hardware.cpu_name or platform.processor(),
        "isa": sorted(hardware.isa & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimddp"}),
        "cores": hardware.num_cores,
        "memory_gib": round(hardware.memory_bytes / 2**30, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "memory_read_gb_per_s": round(memory_read_gb_per_s(), 1),
        "f32_gflop_per_s": round(f32_gflop_per_s(), 0),
        "command": "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }


def commit() -> str:
    here = Path(__file__).parent
    out = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return out.stdout.strip() or "unknown"


def memory_read_gb_per_s() -> float:
    """Best of 8 sums over 256 MiB: the limit of one stream of decoding."""
    import torch

    data = torch.ones(64 * 2**20)
    return data.numel() * 4 / _best(lambda: data.sum()) / 1e9


def f32_gflop_per_s() -> float:
    """Best of 8 products of 2048 x 2048 matrices: the limit of prefill and of large batches."""
    import torch

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / _best(lambda: a @ b) / 1e9


def _best(work: Any, times: int = 8) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
