"""Plot: one metric per run, runs of one name side by side with those of the other names."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from octavo.bench.plots.base import Plot
from octavo.bench.plots.data import Series, series_of
from octavo.bench.plots.style import BLACK, look, new_figure, short
from octavo.bench.types import Interval, Run

PANELS = (
    ("ttft_s.p50", "TTFT p50 [ms]", 1e3),
    ("ttft_s.p99", "TTFT p99 [ms]", 1e3),
    ("tpot_s.p50", "TPOT p50 [ms]", 1e3),
    ("e2e_s.p50", "E2E p50 [s]", 1.0),
    ("output_tokens_per_s", "output [tokens/s]", 1.0),
    ("goodput_rps", "goodput [requests/s]", 1.0),
)
SPREAD = 0.3  # of the runs of a group around its place
MOST_GROUPS = 8


def draw(runs: Sequence[Run]) -> Figure | None:
    groups = series_of([run for run in runs if run.valid])[:MOST_GROUPS]
    if len(groups) < 2:
        return None
    figure = new_figure(4.4, "Every valid run, in the order of time")
    for axes, (key, name, factor) in zip(figure.subplots(2, 3).ravel(), PANELS, strict=True):
        for place, group in enumerate(groups):
            _group(axes, place, group, (key, factor))
        axes.set_title(name)
        axes.set_ylim(bottom=0)
        axes.set_xticks(np.arange(len(groups)), [short(group.name, 48 // len(groups)) for group in groups])
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.grid(visible=False, axis="x")
    return figure


def _group(axes: Axes, place: int, group: Series, what: tuple[str, float]) -> None:
    key, factor = what
    ordered = sorted(group.runs, key=lambda run: run.created)
    offsets = np.linspace(-SPREAD, SPREAD, len(ordered)) if len(ordered) > 1 else np.zeros(1)
    how, values = look(place), []
    for offset, run in zip(offsets, ordered, strict=True):
        found: Interval = attrgetter(key)(run.summary)
        if found.value is None:
            continue
        value = found.value * factor
        low, high = (value if bound is None else bound * factor for bound in (found.low, found.high))
        axes.errorbar(
            [place + offset], [value], yerr=[[value - low], [high - value]], fmt=how.marker, color=how.colour,
            markersize=4, linewidth=1.0, capsize=0,
        )  # fmt: skip
        values.append(value)
    if values:
        axes.hlines(float(np.median(values)), place - 0.42, place + 0.42, color=BLACK, linewidth=1.0, zorder=1.5)


PLOT = Plot(
    "runs",
    "One point a run with its own 95 % interval; the line is the median over runs. If the points scatter more than their bars, "
    "the machine changed between runs.",
    draw,
)
