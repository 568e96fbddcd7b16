"""Forest plot, shared by the plots of ratios: one row each, a point with its interval around one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from octavo.bench.plots.style import GREY, Look
from octavo.bench.types import Interval


@dataclass(frozen=True)
class RatioRow:
    name: str
    ratio: Interval
    note: str  # at the right edge
    look: Look
    filled: bool  # the difference was shown


def draw_rows(axes: Axes, rows: Sequence[RatioRow]) -> float:
    """From top to bottom, on a log axis that is as wide to both sides of one; returns its upper end."""
    widest = 1.02
    for place, row in enumerate(rows):
        found = row.ratio
        if found.value is not None:
            low, high = (found.value if bound is None else bound for bound in (found.low, found.high))
            axes.errorbar(
                [found.value], [place], xerr=[[found.value - low], [high - found.value]], fmt=row.look.marker,
                color=row.look.colour, markerfacecolor=row.look.colour if row.filled else "white", markersize=6,
                linewidth=1.6, zorder=3,
            )  # fmt: skip
            widest = max(widest, *(max(one, 1 / one) for one in (low, found.value, high) if one > 0))
        axes.annotate(row.note, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(1.0, color=GREY, linewidth=1.0)
    axes.set_xscale("log")
    edge = widest ** (1.15)
    axes.set_xlim(1 / edge, edge)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(np.arange(len(rows)), [row.name for row in rows])
    axes.xaxis.set_major_locator(MaxNLocator(5) if edge < 2.5 else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(visible=False, axis="y")
    return float(edge)
