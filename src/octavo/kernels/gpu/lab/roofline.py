"""Roofline plot of a run: every operation under the measured bandwidth and matmul FLOP/s of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octavo.kernels.gpu.lab.benchmark import Row
from octavo.kernels.gpu.lab.limits import Limits

RATES = {"fp32": "tab:gray", "bf16": "tab:blue", "fp8": "tab:green", "int8": "tab:purple"}  # one colour a roof


def draw(rows: Sequence[Row], limits: Limits, path: Path, note: str = "") -> None:
    """``path``: .svg or .png. Left: operations a byte against operations a second, under bandwidth and matmul FLOP/s. Right:
    the fraction of its limit that each shape reaches. ``note``: a warning that stands above, e.g. that it is a dry run."""
    from matplotlib.figure import Figure

    served = [row for row in rows if row.serves in row.backends]
    figure = Figure(figsize=(15, max(5.0, 1.5 + 0.22 * len(served))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 4))
    _roofs(left, [row for row in served if row.operations], limits)
    _fractions(right, served)
    figure.suptitle(f"{note + ': ' if note else ''}octavo kernels on {limits.device}")
    figure.savefig(path, dpi=120)


def _roofs(axes: Any, rows: Sequence[Row], limits: Limits) -> None:
    points = [(row.operations / row.moved_bytes, row) for row in rows if row.moved_bytes]
    known = {name: rate for name in RATES if (rate := getattr(limits, name))}
    ends = [x for x, _ in points] + [rate / limits.copy for rate in known.values()]
    low, high = min(ends, default=1.0) / 4, max(ends, default=1.0) * 4
    for name, rate in known.items():
        ridge = max(low, rate / limits.copy)
        axes.plot([low, ridge, high], [low * limits.copy, rate, rate], color=RATES[name], lw=1.2)
        axes.annotate(
            f"{name} {rate / 1e12:.3g} TFLOP/s", (high, rate), ha="right", va="bottom", color=RATES[name], fontsize=8
        )
    for x, row in points:
        reached = row.backends[row.serves].operations_per_s
        axes.plot(x, reached, "o", color=RATES.get(row.limit, "tab:orange"), ms=5)
        axes.annotate(row.operation, (x, reached), xytext=(4, -3), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="operations / byte", ylabel="operations / s")
    axes.set_title(f"roofline; copy {limits.copy / 1e12:.3g} TB/s", fontsize=10)
    axes.grid(alpha=0.3, which="both")


def _fractions(axes: Any, rows: Sequence[Row]) -> None:
    labels = [f"{row.operation}: {row.benchmark}" for row in rows]
    axes.barh(range(len(rows)), [row.backends[row.serves].fraction for row in rows], color="tab:blue", height=0.6)
    for place, row in enumerate(rows):
        for baseline in row.baselines.values():
            axes.plot(baseline.fraction, place, "|", color="black", ms=9)
    axes.axvline(1.0, color="tab:red", lw=1)
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_title("fraction of the limit (bar: ours, marks: baselines, red: the limit)", fontsize=10)
