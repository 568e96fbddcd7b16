"""Plot: latency of every request by when it was due."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from octavo.bench.plots.base import Plot
from octavo.bench.plots.style import (
    BLUE,
    ORANGE,
    VERMILLION,
    fit_legend,
    limit_handle,
    mark_limit,
    new_figure,
    plain_axis,
    shade_warm_up,
    short,
)
from octavo.bench.statistics.dependence import Array
from octavo.bench.types import Outcome, Run

Places: TypeAlias = np.ndarray[Any, np.dtype[np.intp]]

MOST_DOTS = 3000
LOOKS = (("ttft_s", "TTFT", BLUE, "o"), ("e2e_s", "E2E", ORANGE, "^"))


def thin(values: Array) -> Places:
    """Which of many dots to draw: the slowest hundredth, and of the others every k-th."""
    if len(values) <= MOST_DOTS:
        return np.arange(len(values))
    slow = values >= np.quantile(values, 0.99)
    every = np.arange(len(values)) % (len(values) // MOST_DOTS + 1) == 0
    return np.flatnonzero(slow | every)


def draw(run: Run) -> Figure | None:
    ok = [one for one in run.records if one.outcome is Outcome.OK]
    bad = [one for one in run.records if one.outcome in (Outcome.FAILED, Outcome.TIMED_OUT)]
    if not ok:
        return None
    title = f"Latency over the run: {short(run.name)} ({len(ok)} answered requests)"
    figure = new_figure(2.9, title)
    axes: Axes = figure.subplots()
    handles, seen = [], []
    for key, name, colour, marker in LOOKS:
        pairs = [(one.intended_s, value * 1e3) for one in ok if (value := getattr(one, key)) is not None]
        if not pairs:
            continue
        due, values = np.array(pairs).T
        kept = thin(values)
        axes.plot(
            due[kept], values[kept], marker, color=colour, markersize=3, markerfacecolor="none", markeredgewidth=0.7
        )
        seen += [float(values.min()), float(values.max())]
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="", markerfacecolor="none", label=name))
        limit = getattr(run.slo, key)
        mark_limit(axes, None if limit is None else limit * 1e3, vertical=False)
    plain_axis(axes.yaxis, seen)
    shade_warm_up(axes, run.summary.warm_up_s)
    if bad:
        _failed(axes, [one.intended_s for one in bad])
        label = f"failed or timed out ({len(bad)})"
        handles.append(Line2D([], [], color=VERMILLION, marker="x", linestyle="", label=label))
    if run.slo.ttft_s is not None or run.slo.e2e_s is not None:
        handles.append(limit_handle())
    axes.set(xlabel="request was due [s]", ylabel="latency [ms]")
    axes.set_xlim(left=0)
    fit_legend(figure, handles)
    return figure


def _failed(axes: Axes, due: list[float]) -> None:
    """Along the lower edge: they have no latency."""
    kept = due[:: len(due) // MOST_DOTS + 1]
    axes.plot(
        kept, [0.015] * len(kept), "x", color=VERMILLION, markersize=4, transform=axes.get_xaxis_transform(),
        clip_on=False,
    )  # fmt: skip


PLOT = Plot(
    "latency-over-time",
    "One mark a request, where it was due. A slope is a queue that grows, a wall of marks a stall; the grey part is the warm-up, "
    "which no metric counts.",
    draw,
)
