"""Plot: output tokens/s and requests due, answered, failed per second."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from octavo.bench.plots.base import Plot
from octavo.bench.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    fit_legend,
    new_figure,
    shade_warm_up,
    short,
)
from octavo.bench.rates import output_arrivals
from octavo.bench.statistics.dependence import Array
from octavo.bench.types import Outcome, Run

MOST_BINS = 60
FEWEST_BINS = 8


def bins_of(run: Run) -> Array:
    """Edges of equal bins over the run, of about a second."""
    end_s = max(run.duration_s, 1e-3)
    return np.linspace(0.0, end_s, int(np.clip(round(end_s), FEWEST_BINS, MOST_BINS)) + 1)


def per_second(times: Array | list[float], edges: Array, amounts: Array | None = None) -> Array:
    """How much of ``amounts`` (default: one each) came in each bin, a second."""
    counts = np.histogram(times, bins=edges, weights=amounts)[0].astype(np.float64)
    return counts / np.diff(edges)


def draw(run: Run) -> Figure | None:
    answered = [one for one in run.records if one.outcome is Outcome.OK]
    failed = [one for one in run.records if one.outcome in (Outcome.FAILED, Outcome.TIMED_OUT)]
    if not answered and not failed:
        return None
    edges = bins_of(run)
    figure = new_figure(3.9, f"Throughput over the run: {short(run.name)} (bins of {edges[1]:.2g} s)")
    upper, lower = figure.subplots(2, 1, sharex=True)
    tokens = output_arrivals(answered)
    upper.stairs(per_second(tokens.times_s, edges, tokens.amounts), edges, color=BLUE, linewidth=1.5)
    _steady_mean(upper, run, edges[-1])
    upper.set(ylabel="output [tokens/s]")
    due = [one.intended_s for one in answered + failed]
    lower.stairs(per_second(due, edges), edges, color=GREY, linewidth=1.2, linestyle="--")
    ends = [one.end_s for one in answered if one.end_s is not None]
    lower.stairs(per_second(ends, edges), edges, color=GREEN, linewidth=1.5)
    handles = [
        Line2D([], [], color=BLUE, label="output tokens"),
        Patch(color=BLACK, alpha=0.25, label="steady mean, 95 % interval"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="requests due"),
        Line2D([], [], color=GREEN, label="answered"),
    ]
    if failed:
        when = [one.end_s if one.end_s is not None else one.intended_s for one in failed]
        lower.stairs(per_second(when, edges), edges, color=VERMILLION, linewidth=1.2, linestyle=":")
        handles.append(Line2D([], [], color=VERMILLION, linestyle=":", label="failed or timed out"))
    lower.set(xlabel="time since the start of the run [s]", ylabel="requests [1/s]")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, edges[-1])
        shade_warm_up(axes, run.summary.warm_up_s)
    fit_legend(figure, handles, columns=3)
    return figure


def _steady_mean(axes: Axes, run: Run, end_s: float) -> None:
    found = run.summary.output_tokens_per_s
    if found.value is None:
        return
    span = [min(run.summary.warm_up_s, end_s), end_s]
    axes.plot(span, [found.value] * 2, color=BLACK, linewidth=0.9, linestyle=(0, (6, 2)))
    if found.low is not None and found.high is not None:
        axes.fill_between(span, found.low, found.high, color=BLACK, alpha=0.15, linewidth=0)


PLOT = Plot(
    "throughput",
    "Answered should follow due: where it stays below, requests pile up. The steady mean is the summary's value; the end of a "
    "run, where the server runs empty, is not in it.",
    draw,
)
