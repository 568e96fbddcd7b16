"""Plot: requests in flight at the client; running, waiting and KV-cache use as reported by the server."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from octavo.bench.plots.base import Plot
from octavo.bench.plots.style import (
    BLACK,
    BLUE,
    ORANGE,
    PURPLE,
    fit_legend,
    new_figure,
    shade_warm_up,
    short,
)
from octavo.bench.statistics.dependence import Array
from octavo.bench.types import Run

GAUGES: tuple[tuple[str, str, str, Any], ...] = (
    ("running", "running (server)", BLUE, "--"),
    ("waiting", "waiting (server)", ORANGE, "-."),
)
MOST_STEPS = 2000


def in_flight(run: Run) -> tuple[Array, Array]:
    """Times and, from each on, how many requests had been sent and not ended."""
    sent = [one for one in run.records if not one.not_sent]
    begins = np.array([one.sent_s for one in sent])
    ends = np.array([run.duration_s if one.end_s is None else one.end_s for one in sent])
    times = np.concatenate((begins, ends))
    order = np.argsort(times, kind="stable")
    changes = np.concatenate((np.ones(len(sent)), -np.ones(len(sent))))
    return times[order], np.cumsum(changes[order])


def gauge(run: Run, column: str) -> tuple[Array, Array]:
    """What the server said of itself, and when it was asked."""
    rows = [(row["t_s"], row[column]) for row in run.server_series if column in row and "t_s" in row]
    found = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def draw(run: Run) -> Figure | None:
    times, counts = in_flight(run)
    if not len(times):
        return None
    cache = gauge(run, "kv_usage")
    num_panels = 2 if len(cache[0]) else 1
    figure = new_figure(2.7 + 1.1 * (num_panels - 1), f"Requests in the system: {short(run.name)}")
    panels = figure.subplots(
        num_panels, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [2, 1][:num_panels]}
    )[:, 0]
    _in_flight(panels[0], times, counts)
    handles = [Line2D([], [], color=BLACK, linewidth=1.0, label="in flight (client)")]
    for column, name, colour, line in GAUGES:
        when, values = gauge(run, column)
        if len(when):
            panels[0].step(when, values, where="post", color=colour, linestyle=line, linewidth=1.5)
            handles.append(Line2D([], [], color=colour, linestyle=line, label=name))
    panels[0].set(ylabel="requests")
    if len(cache[0]):
        panels[1].step(cache[0], cache[1] * 100, where="post", color=PURPLE)
        panels[1].set(ylabel="KV cache [%]")
        panels[1].set_ylim(0, max(5.0, float(cache[1].max()) * 110))
    for axes in panels:
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, max(run.duration_s, float(times[-1])))
        shade_warm_up(axes, run.summary.warm_up_s)
    panels[-1].set_xlabel("time since the start of the run [s]")
    fit_legend(figure, handles)
    return figure


def _in_flight(axes: Axes, times: Array, counts: Array) -> None:
    """As a step line; of a long run, the highest and the lowest of each short stretch."""
    if len(times) > MOST_STEPS:
        parts = np.array_split(np.arange(len(times)), MOST_STEPS // 2)
        kept = sorted({int(part[pick(counts[part])]) for part in parts for pick in (np.argmin, np.argmax)})
        times, counts = times[kept], counts[kept]
    axes.step(times, counts, where="post", color=BLACK, linewidth=1.0)


PLOT = Plot(
    "timeline",
    "A level line is a server that keeps up; a rising one an overload. Waiting above zero while running is flat: it is full.",
    draw,
)
