"""Style of all plots: colours for colour-blind readers, line styles for greyscale, axes in plain numbers.

Palette: Okabe & Ito (2008), "Color Universal Design"; for an ordered quantity cividis (Nuñez, Anderton & Renslow 2018), whose
lightness grows steadily, so that it survives a photocopy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from octavo.bench.statistics.dependence import Array

BLACK, GREY, LIGHT = "#000000", "#6b6b6b", "#d9d9d9"
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)
LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH_IN = 7.2  # both columns of a paper
RC: Any = {  # matplotlib types its keys as literals
    "font.family": "DejaVu Sans",  # travels with matplotlib: the same everywhere
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "figure.titlesize": 10,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "errorbar.capsize": 2.5,
    "text.parse_math": False,  # labels hold what users and servers wrote
    "svg.fonttype": "path",
    "svg.hashsalt": "octavo",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
MOST_IN_LABEL = 28
NARROW = 4.0  # a range of less than this factor is read better on a linear axis
MOST_IN_LEGEND = 10


@dataclass(frozen=True)
class Look:
    """Of one series."""

    colour: str
    line: Any
    marker: str

    def kwargs(self) -> dict[str, Any]:
        return {"color": self.colour, "linestyle": self.line}


def look(index: int) -> Look:
    """The i-th of several things that have no order."""
    return Look(COLOURS[index % len(COLOURS)], LINES[index % len(LINES)], MARKERS[index % len(MARKERS)])


def shade(index: int, count: int) -> Look:
    """The i-th of several that have an order, dark to light; without cividis' last, yellow part, which white swallows."""
    colour = to_hex(mpl.colormaps["cividis"](0.82 * index / max(1, count - 1)))
    return Look(colour, LINES[index % len(LINES)], MARKERS[index % len(MARKERS)])


def new_figure(height_in: float, title: str) -> Figure:
    """A plot as wide as a page, with its title at the left."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontweight="bold")
    return figure


def short(text: str, limit: int = MOST_IN_LABEL) -> str:
    """One line, printable, cut in the middle: the ends of names tell them apart."""
    line = "".join(char if char.isprintable() else " " for char in text).strip()
    if len(line) <= limit:
        return line
    return f"{line[: limit // 2]}…{line[-(limit - limit // 2 - 1) :]}"


def plain_axis(axis: Axis, values: Array | Sequence[float]) -> None:
    """A log axis with 1, 2, 5, 10 as ticks; a linear one where the values lie within a small factor or not all above zero."""
    found = np.asarray(values, dtype=np.float64)
    found = found[np.isfinite(found)]
    axes: Any = axis.axes
    scale = axes.set_xscale if axis is axes.xaxis else axes.set_yscale
    if len(found) == 0 or found.min() <= 0 or found.max() / found.min() < NARROW:
        scale("linear")
        axis.set_major_locator(MaxNLocator(5))
    else:
        scale("log")
        wide = found.max() / found.min() > 300
        axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def fit_legend(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    """Below the panels, where it hides nothing; the first ones where there are too many."""
    shown = list(handles[:MOST_IN_LEGEND])
    if len(handles) > len(shown):
        shown.append(Line2D([], [], alpha=0, label=f"and {len(handles) - len(shown)} more"))
    if shown:
        figure.legend(handles=shown, loc="outside lower center", ncols=min(columns, len(shown)))


def mark_limit(axes: Axes, limit: float | None, *, vertical: bool) -> None:
    """An SLO target, in the unit of the axis."""
    if limit is not None:
        line = axes.axvline if vertical else axes.axhline
        line(limit, color=GREY, linestyle=(0, (4, 2)), linewidth=1.0, zorder=1.5)


def limit_handle() -> Line2D:
    return Line2D([], [], color=GREY, linestyle=(0, (4, 2)), linewidth=1.0, label="SLO target")


def shade_warm_up(axes: Axes, warm_up_s: float) -> None:
    """The part of the run that is in no figure."""
    if warm_up_s > 0:
        axes.axvspan(0, warm_up_s, color=LIGHT, alpha=0.5, linewidth=0, zorder=0)
