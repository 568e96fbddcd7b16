"""Plots of suites and peers: share of the machine's limit, tokens/s of each server, ratios to the first server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from octavo.bench.peers import PeersResult
from octavo.bench.plots.base import Plot
from octavo.bench.plots.forest import RatioRow, draw_rows
from octavo.bench.plots.style import fit_legend, look, new_figure, short
from octavo.bench.scenario_metrics import Spread
from octavo.bench.suite import ScenarioResult

HATCHES = ("", "///", "...", "xx", "\\\\")


def draw_fractions(rows: Sequence[ScenarioResult]) -> Figure | None:
    return _bars(rows, lambda row: row.fraction, (100.0, "Share of the machine's limit", "of the limit [%]"))


def draw_rates(rows: Sequence[ScenarioResult]) -> Figure | None:
    return _bars(rows, lambda row: row.output_tokens_per_s, (1.0, "Output rate", "output [tokens/s]"))


def _bars(
    rows: Sequence[ScenarioResult], of: Callable[[ScenarioResult], Spread | None], words: tuple[float, str, str]
) -> Figure | None:
    """Grouped by scenario, one bar a target, whiskers from the lowest repetition to the highest."""
    factor, title, axis = words
    found = {(row.row, row.target): spread for row in rows if (spread := of(row)) is not None}
    if not found:
        return None
    names = list(dict.fromkeys(row for row, _ in found))
    targets = list(dict.fromkeys(row.target for row in rows))
    figure = new_figure(1.2 + len(names) * (0.16 + 0.2 * len(targets)), f"{title}, by scenario")
    axes = figure.subplots()
    thick = 0.8 / len(targets)
    for number, target in enumerate(targets):
        how = look(number)
        for place, name in enumerate(names):
            if (spread := found.get((name, target))) is None:
                continue
            at = place + (number - (len(targets) - 1) / 2) * thick
            value, low, high = (one * factor for one in (spread.median, spread.low, spread.high))
            axes.barh(
                at, value, thick * 0.9, color=how.colour, hatch=HATCHES[number % 5], edgecolor="white", linewidth=0
            )
            axes.errorbar([value], [at], xerr=[[value - low], [high - value]], fmt="none", ecolor="black", elinewidth=1)
    axes.set_yticks(np.arange(len(names)), [short(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel(f"{axis}, median; whiskers: lowest to highest repetition")
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    if len(targets) > 1:
        fit_legend(figure, [
            Patch(facecolor=look(number).colour, hatch=HATCHES[number % 5], edgecolor="white", label=short(target))
            for number, target in enumerate(targets)
        ])  # fmt: skip
    return figure


def draw_ratios(result: PeersResult) -> Figure | None:
    found = [one for one in result.ratios if one.metric == "output_tokens_per_s" and one.ratio.value is not None]
    if not found:
        return None
    peers = list(dict.fromkeys(one.peer for one in found))
    baseline = found[0].baseline
    figure = new_figure(1.3 + 0.3 * len(found), f"Output rate as a ratio to {short(baseline)}")
    axes = figure.subplots()
    rows = [
        RatioRow(
            f"{one.row}, {short(one.peer, 16)}" if len(peers) > 1 else one.row,
            one.ratio,
            f"{one.num_rounds} rounds",
            look(peers.index(one.peer) + 1),
            _shown(one.ratio.low, one.ratio.high),
        )
        for one in found
    ]
    draw_rows(axes, rows)
    axes.set_xlabel(f"output tokens/s over those of {short(baseline)}, 95 % interval (log axis); right of 1 is faster")
    fit_legend(figure, [
        Line2D([], [], color=look(place + 1).colour, marker=look(place + 1).marker, linestyle="", label=short(peer))
        for place, peer in enumerate(peers)
    ])  # fmt: skip
    return figure


def _shown(low: float | None, high: float | None) -> bool:
    """The interval leaves one out."""
    return low is not None and high is not None and not low <= 1.0 <= high


FRACTIONS = Plot(
    "suite-limit",
    "Share of the machine's limit that each scenario reached, by arithmetic on the model and the calibration beside it.",
    draw_fractions,
)
RATES = Plot("suite-rate", "Output tokens per second of each scenario; scenarios differ in what they ask.", draw_rates)
RATIOS = Plot(
    "peer-ratios",
    "Taken within each round, where both servers met the same machine. Filled: the interval leaves out 1 (each scenario "
    "alone, not corrected for their number).",
    draw_ratios,
)
