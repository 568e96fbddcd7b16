"""Shared by the plots of distributions: one panel a latency, one line a run, percentiles with their intervals.

The i-th of n sorted values stands at the share (i - 1/2) / n (Hazen), the estimator of the summary's percentiles: they lie on
the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from octavo.bench.plots.data import Styled
from octavo.bench.plots.style import plain_axis
from octavo.bench.statistics.dependence import Array
from octavo.bench.statistics.quantile import quantile_intervals
from octavo.bench.types import Interval, Latency

MOST_POINTS = 400  # of a line; more show nothing and make the file large
ENOUGH_FOR_P999 = 1000
TAIL_TICKS: Mapping[float, str] = {0.5: "50 %  p50", 0.1: "10 %  p90", 0.01: "1 %  p99", 0.001: "0.1 %  p99.9"}


def points(values: Array) -> tuple[Array, Array]:
    """Sorted values and the share of values beyond each; thinned out, but never among the highest."""
    ordered = np.sort(values)
    size = len(ordered)
    beyond = 1 - (np.arange(size) + 0.5) / size
    if size > MOST_POINTS:
        even = np.linspace(0, size - 1, MOST_POINTS // 2)
        tail = size - np.geomspace(1, size, MOST_POINTS // 2)
        kept = np.unique(np.concatenate((even, tail)).astype(np.intp))
        ordered, beyond = ordered[kept], beyond[kept]
    return ordered, beyond


def marks(latency: Latency, values: Array) -> dict[float, Interval]:
    """Share beyond -> the percentile's interval, in seconds; the p99.9 only where there are requests to see it."""
    found = {0.5: latency.p50, 0.1: latency.p90, 0.01: latency.p99}
    if len(values) >= ENOUGH_FOR_P999:
        found[0.001] = quantile_intervals(values, (0.999,))[0]
    return {share: interval for share, interval in found.items() if interval.value is not None}


def draw_line(axes: Axes, line: Styled, values: Array, *, tail: bool) -> None:
    """``values`` in the unit of the axis."""
    x, beyond = points(values)
    axes.plot(x, beyond if tail else 1 - beyond, **line.look.kwargs(), label=line.label or "_")


def draw_marks(axes: Axes, found: Mapping[float, Interval], factor: float, line: Styled, *, tail: bool) -> list[float]:
    """Percentiles with 95 % intervals; the values that they reach to."""
    reached: list[float] = []
    for share, interval in found.items():
        assert interval.value is not None
        value = interval.value * factor
        low, high = ((value if bound is None else bound * factor) for bound in (interval.low, interval.high))
        axes.errorbar(
            [value], [share if tail else 1 - share], xerr=[[value - low], [high - value]],
            fmt=line.look.marker, color=line.look.colour, markersize=4, markerfacecolor="white", linewidth=1.1, zorder=3,
        )  # fmt: skip
        reached += [low, high]
    return reached


def finish_panel(axes: Axes, seen: Sequence[float] | Array, *, tail: bool, smallest: float) -> None:
    """Axes in plain numbers; the tail's shares as percentiles."""
    plain_axis(axes.xaxis, seen)
    if not tail:
        axes.set_ylim(0, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        return
    axes.set_yscale("log")
    axes.set_ylim(smallest * 0.7, 1.0)
    shown = {share: text for share, text in TAIL_TICKS.items() if share >= smallest * 0.7}
    axes.set_yticks(list(shown), list(shown.values()))
    axes.minorticks_off()


def mark_handle() -> Line2D:
    return Line2D(
        [], [], color="black", marker="o", markerfacecolor="white", markersize=4, linewidth=1.1,
        label="percentile, 95 % interval",
    )  # fmt: skip


def line_handles(lines: Sequence[Styled]) -> list[Line2D]:
    return [Line2D([], [], **line.look.kwargs(), label=line.label) for line in lines if line.label]
