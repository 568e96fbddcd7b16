"""Plot: goodput and SLO attainment, for all requests, per class and per tenant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from octavo.bench.plots.base import Plot
from octavo.bench.plots.style import BLUE, GREEN, ORANGE, new_figure, short
from octavo.bench.slo_attainment import meets, slo_of
from octavo.bench.types import Interval, Outcome, Run

MOST_BARS = 24
HATCHES = {"all": "", "class": "///", "tenant": "..."}
FILLS = {"all": BLUE, "class": ORANGE, "tenant": GREEN}


@dataclass(frozen=True)
class Bar:
    kind: str  # "all", "class" or "tenant"
    name: str
    goodput: Interval
    share: float | None  # of its requests that met all their SLOs
    num_requests: int


def bars_of(run: Run) -> list[Bar]:
    """All requests first, then classes and tenants as the summary has them."""
    counts, summary = run.requests, run.summary
    total = counts.ok + counts.failed + counts.timed_out
    bars = [Bar("all", "all requests", summary.goodput_rps, _share(run), total)]
    for key, group in summary.groups.items():
        kind, _, name = key.partition(":")
        found = group.get("goodput_rps") or {}
        number = group.get("requests") or {}
        bars.append(
            Bar(
                kind,
                f"{kind} {name}",
                Interval(found.get("value"), found.get("low"), found.get("high")),
                group.get("slo_met_share"),
                sum(number.get(outcome, 0) for outcome in ("ok", "failed", "timed_out")),
            )
        )
    return bars[:MOST_BARS]


def _share(run: Run) -> float | None:
    """Over all requests, by their own SLOs or else the run's."""
    counted = [one for one in run.records if one.outcome is not Outcome.CANCELLED]
    return sum(meets(one, slo_of(one, run.slo)) for one in counted) / len(counted) if counted else None


def draw(run: Run) -> Figure | None:
    bars = bars_of(run)
    if all(bar.goodput.value is None for bar in bars):
        return None
    figure = new_figure(1.3 + 0.3 * len(bars), f"Goodput: {short(run.name)}")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [f"{short(bar.name, 24)} ({bar.num_requests})" for bar in bars]
    values = [bar.goodput.value or 0.0 for bar in bars]
    _bars(left, bars, values)
    errors = np.array([_error(bar.goodput) for bar in bars]).T
    left.errorbar(values, np.arange(len(bars)), xerr=errors, fmt="none", ecolor="black", elinewidth=1.1, zorder=3)
    left.set_yticks(np.arange(len(bars)), names)
    left.invert_yaxis()
    left.set(title="requests that attained their SLOs", xlabel="goodput [requests/s], 95 % interval")
    _bars(right, bars, [100 * (bar.share or 0.0) for bar in bars])
    for place, bar in enumerate(bars):
        if bar.share is not None:
            right.text(min(100 * bar.share, 86) + 1, place, f"{100 * bar.share:.0f} %", va="center", fontsize=8,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})  # fmt: skip
    right.set(title="share of its requests", xlabel="SLO attainment [%]")
    right.set_xlim(0, 105)
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    return figure


def _bars(axes: Axes, bars: list[Bar], values: list[float]) -> None:
    for place, (bar, value) in enumerate(zip(bars, values, strict=True)):
        axes.barh(
            place, value, height=0.62, color=FILLS.get(bar.kind, GREEN), hatch=HATCHES.get(bar.kind, ""),
            edgecolor="white", linewidth=0,
        )  # fmt: skip


def _error(found: Interval) -> tuple[float, float]:
    if found.value is None or found.low is None or found.high is None:
        return (0.0, 0.0)
    return (found.value - found.low, found.high - found.value)


PLOT = Plot(
    "goodput",
    "Requests that attained all their SLOs: how many a second, and which share of those sent; failed ones violate them. In "
    "brackets: requests sent. Without an SLO, every response counts.",
    draw,
)
