"""Plot: latency percentiles and throughput against offered load, with the knee and the SLO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from octavo.bench.plots.base import Plot
from octavo.bench.plots.data import METRICS, Metric, Series, offered_rps, series_of
from octavo.bench.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    fit_legend,
    limit_handle,
    mark_limit,
    new_figure,
    plain_axis,
    short,
)
from octavo.bench.sweep import knee_of
from octavo.bench.types import Interval, Run

PERCENTILES: tuple[tuple[str, str, str, Any], ...] = (
    ("p50", BLUE, "o", "-"),
    ("p90", ORANGE, "s", "--"),
    ("p99", VERMILLION, "^", "-."),
)
KNEE_LINE: Any = (0, (1, 1.5))


def points(runs: Sequence[Run], of: Callable[[Run], Interval]) -> list[tuple[float, Interval]]:
    """Offered rate and metric, of each valid run that has both, by rate."""
    found = [(rate, of(run)) for run in runs if run.valid and (rate := offered_rps(run)) is not None]
    return sorted(((rate, one) for rate, one in found if one.value is not None), key=lambda pair: pair[0])


def medians(found: Sequence[tuple[float, Interval]]) -> list[tuple[float, Interval]]:
    """One point a rate: the median over its runs, from the lowest of their intervals to the highest."""
    merged = []
    for rate in sorted({rate for rate, _ in found}):
        here = [one for where, one in found if where == rate]
        lows = [one.low for one in here if one.low is not None]
        highs = [one.high for one in here if one.high is not None]
        middle = float(np.median([one.value for one in here if one.value is not None]))
        merged.append((rate, Interval(middle, min(lows, default=None), max(highs, default=None))))
    return merged


def knee_rate(series: Series) -> float | None:
    """The offered rate of the run at the knee; None where the curve does not bend within the rates that were tried."""
    knee = knee_of(series.runs)
    if knee is None or not knee.reached:
        return None
    return next(
        (offered_rps(run) for run in series.runs if run.valid and run.summary.request_rate_rps.value == knee.load), None
    )


def draw(runs: Sequence[Run]) -> Figure | None:
    """Of one sweep: the first of the runs' names that has several rates."""
    series = next((one for one in series_of(runs) if one.is_sweep), None)
    if series is None:
        return None
    figure = new_figure(5.0, f"Latency against load: {short(series.name)} ({len(series.runs)} runs)")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    knee = knee_rate(series)
    for axes, metric in zip(panels, METRICS, strict=False):
        _latency(axes, series, metric)
    _through(panels[3], series)
    handles = [
        *(Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=4, label=name)
          for name, colour, marker, line in PERCENTILES),
        Patch(color=GREY, alpha=0.25, label="95 % interval"),
    ]  # fmt: skip
    if any(getattr(run.slo, metric.key) is not None for run in series.runs for metric in METRICS):
        handles.append(limit_handle())
    if knee is not None:
        for axes in panels:
            axes.axvline(knee, color=BLACK, linestyle=KNEE_LINE, linewidth=1.1)
        handles.append(Line2D([], [], color=BLACK, linestyle=KNEE_LINE, linewidth=1.1, label=f"knee: {knee:g}/s"))
    if invalid := [rate for run in series.runs if not run.valid and (rate := offered_rps(run)) is not None]:
        for axes in panels:
            axes.plot(invalid, [0.02] * len(invalid), "x", color=BLACK, transform=axes.get_xaxis_transform())
        handles.append(Line2D([], [], color=BLACK, marker="x", linestyle="", label="invalid run"))
    for axes in panels[2:]:
        axes.set_xlabel("offered load [requests/s]")
    plain_axis(panels[0].xaxis, series.rates)
    fit_legend(figure, handles)
    return figure


def _latency(axes: Axes, series: Series, metric: Metric) -> None:
    reached: list[float] = []
    for name, colour, marker, line in PERCENTILES:

        def interval(run: Run, name: str = name) -> Interval:
            found: Interval = getattr(getattr(run.summary, metric.key), name)
            return found

        merged = medians(points(series.runs, interval))
        reached += _curve(axes, merged, metric.factor, {"color": colour, "marker": marker, "linestyle": line})
    for limit in {getattr(run.slo, metric.key) for run in series.runs} - {None}:
        mark_limit(axes, limit * metric.factor, vertical=False)
        reached.append(limit * metric.factor)
    plain_axis(axes.yaxis, reached)
    axes.set_title(metric.name)
    axes.set_ylabel(f"{metric.name} [{metric.unit}]")


def _through(axes: Axes, series: Series) -> None:
    """Answered requests and goodput, against the rate sent."""
    rates = series.rates
    line = np.linspace(min(rates), max(rates), 50)  # a curve where the axis of rates is logarithmic
    axes.plot(line, line, color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate("answered = offered", (max(rates), max(rates)), (-4, -2), textcoords="offset points", fontsize=7,
                  color=GREY, ha="right", va="bottom")  # fmt: skip
    answered = medians(points(series.runs, lambda run: run.summary.request_rate_rps))
    good = medians(points(series.runs, lambda run: run.summary.goodput_rps))
    _curve(axes, answered, 1.0, {"color": BLACK, "marker": "D", "linestyle": "-"})
    _curve(axes, good, 1.0, {"color": GREEN, "marker": "v", "linestyle": "--"})
    handles = [
        Line2D([], [], color=BLACK, marker="D", markersize=4, label="answered"),
        Line2D([], [], color=GREEN, marker="v", markersize=4, linestyle="--", label="goodput"),
    ]
    axes.legend(handles=handles, loc="upper left")
    axes.set_title("Throughput")
    axes.set_ylabel("requests [1/s]")
    axes.set_ylim(bottom=0)


def _curve(axes: Axes, found: Sequence[tuple[float, Interval]], factor: float, how: dict[str, Any]) -> list[float]:
    """A line with its band; the values that they reach to."""
    if not found:
        return []
    rates = [rate for rate, _ in found]
    values = np.array([one.value for _, one in found], dtype=np.float64) * factor
    axes.plot(rates, values, markersize=4, **how)
    low, high = (
        np.array([one.value if (bound := getattr(one, side)) is None else bound for _, one in found]) * factor
        for side in ("low", "high")
    )
    axes.fill_between(rates, low, high, color=how["color"], alpha=0.15, linewidth=0)
    return [*values.tolist(), *low.tolist(), *high.tolist()]


PLOT = Plot(
    "latency-against-load",
    "One point a rate. Before the knee more load costs little; beyond it, latency grows faster than throughput. Where answered "
    "falls below offered the server is overloaded, and its latency only says how long the run was.",
    draw,
)
