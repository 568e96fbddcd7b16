"""Plot: distributions of TTFT, TPOT and E2E, as a CDF and with the tail stretched out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from octavo.bench.plots.base import Plot
from octavo.bench.plots.data import METRICS, Metric, Styled, latencies, styled, title_of
from octavo.bench.plots.distribution import (
    draw_line,
    draw_marks,
    finish_panel,
    line_handles,
    mark_handle,
    marks,
    points,
)
from octavo.bench.plots.style import GREY, fit_legend, limit_handle, mark_limit, new_figure
from octavo.bench.types import Run

VISIBLE = 1.02  # factor between corrected and uncorrected p99, from which on both are drawn


def draw_cdf(runs: Sequence[Run]) -> Figure | None:
    return _draw(runs, tail=False)


def draw_tail(runs: Sequence[Run]) -> Figure | None:
    return _draw(runs, tail=True)


def _draw(runs: Sequence[Run], *, tail: bool) -> Figure | None:
    lines = styled(runs)
    shown = [metric for metric in METRICS if any(len(latencies(run, metric.key)) for run in runs)]
    if not shown:
        return None
    what = "Latency tails" if tail else "Latency distributions"
    figure = new_figure(3.2, f"{what}: {title_of(runs)}")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    handles = line_handles(lines) if len(lines) > 1 else []
    if len(lines) == 1:
        handles.append(mark_handle())
    uncorrected = False
    for axes, metric in zip(panels, shown, strict=True):
        seen, smallest = [], 0.5
        for line in lines:
            values = latencies(line.run, metric.key)
            if not len(values):
                continue
            draw_line(axes, line, values * metric.factor, tail=tail)
            seen += [values.min() * metric.factor, values.max() * metric.factor]
            smallest = min(smallest, 0.5 / len(values))
            if len(lines) == 1:
                found = marks(getattr(line.run.summary, metric.key), values)
                seen += draw_marks(axes, found, metric.factor, line, tail=tail)
                uncorrected |= tail and _draw_uncorrected(axes, line, metric)
        _draw_limits(axes, runs, metric)
        finish_panel(axes, seen, tail=tail, smallest=smallest)
        axes.set_title(metric.name)
        axes.set_xlabel(f"{metric.name} [{metric.unit}]")
    panels[0].set_ylabel("requests slower than this" if tail else "requests at most this slow")
    if uncorrected:
        handles.append(Line2D([], [], color=GREY, linewidth=1, label="from the actual send (hides the client's queue)"))
    if any(limits(runs, metric) for metric in shown):
        handles.append(limit_handle())
    fit_legend(figure, handles)
    return figure


def limits(runs: Sequence[Run], metric: Metric) -> list[float]:
    """SLO targets of the runs for a latency, in its unit."""
    found = {getattr(run.slo, metric.key) for run in runs}
    return sorted(limit * metric.factor for limit in found if limit is not None)


def _draw_limits(axes: object, runs: Sequence[Run], metric: Metric) -> None:
    for limit in limits(runs, metric):
        mark_limit(axes, limit, vertical=True)  # type: ignore[arg-type]


def _draw_uncorrected(axes: object, line: Styled, metric: Metric) -> bool:
    """What a client that measures from its own send would have claimed; only where that is something else."""
    if metric.key == "tpot_s":
        return False
    claimed, true = latencies(line.run, f"uncorrected_{metric.key}"), latencies(line.run, metric.key)
    if np.quantile(true, 0.99) < VISIBLE * np.quantile(claimed, 0.99):
        return False
    x, beyond = points(claimed * metric.factor)
    axes.plot(x, beyond, color=GREY, linewidth=1)  # type: ignore[attr-defined]
    return True


CDF = Plot(
    "latency-cdf",
    "Each line rises from no request to all: at height 50 % it crosses the median. Further left is faster; an upright line is a "
    "predictable latency.",
    draw_cdf,
)
TAIL = Plot(
    "latency-tail",
    "The slow end stretched out: where a line crosses 1 %, one request in a hundred was slower (p99). The last points are single "
    "requests.",
    draw_tail,
)
