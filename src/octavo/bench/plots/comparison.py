"""Plot: the ratios of ``bench compare`` with their confidence intervals."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from octavo.bench.compare import Comparison, MetricComparison
from octavo.bench.plots.base import Plot
from octavo.bench.plots.forest import RatioRow, draw_rows
from octavo.bench.plots.style import GREY, fit_legend, look, new_figure, short

NAMES = {
    "ttft_s.p50": "TTFT p50",
    "ttft_s.p99": "TTFT p99",
    "tpot_s.p50": "TPOT p50",
    "e2e_s.p50": "E2E p50",
    "output_tokens_per_s": "output tokens/s",
    "goodput_rps": "goodput",
}


def significant(row: MetricComparison) -> bool:
    return row.verdict != "no difference shown"


def draw(comparison: Comparison) -> Figure | None:
    labels = [label for label in comparison.num_runs if label != comparison.baseline]
    halves = [
        (title, rows)
        for title, more in (("latencies: left of 1 is faster", False), ("rates: right of 1 is faster", True))
        if (rows := [row for row in comparison.rows if row.more_is_better == more and row.ratio.value is not None])
    ]
    if not halves:
        return None
    sizes = [len(rows) for _, rows in halves]
    names = ", ".join(short(label, 20) for label in labels)
    title = f"Ratio to {short(comparison.baseline, 20)} ({comparison.num_runs[comparison.baseline]} runs): {names}"
    figure = new_figure(1.5 + 0.3 * sum(sizes) + 0.35 * len(halves), title)
    panels = figure.subplots(len(halves), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": sizes})[:, 0]
    edge = 1.0
    for axes, (half, rows) in zip(panels, halves, strict=True):
        edge = max(edge, draw_rows(axes, [_row(row, labels) for row in rows]))
        axes.set_title(half)
    panels[-1].set_xlim(1 / edge, edge)
    panels[-1].set_xlabel(f"ratio to {short(comparison.baseline)}, 95 % interval (log axis)")
    handles = [
        Line2D([], [], color=GREY, marker="o", linestyle="", label=f"shown (p <= {comparison.level:g} after Holm)"),
        Line2D([], [], color=GREY, marker="o", linestyle="", markerfacecolor="white", label="no difference shown"),
    ]
    fit_legend(figure, handles)
    return figure


def _row(row: MetricComparison, labels: list[str]) -> RatioRow:
    metric = NAMES.get(row.metric, row.metric)
    name = metric if len(labels) == 1 else f"{short(row.label, 16)}: {metric}"
    note = row.verdict if significant(row) else "not shown"
    return RatioRow(
        name, row.ratio, f"{note}, p = {row.corrected_p_value:.3f}", look(labels.index(row.label)), significant(row)
    )


PLOT = Plot(
    "comparison",
    "A filled mark is a difference that was shown; a hollow one may be noise, whatever its place. The bar says how large the "
    "difference may be; p-values count for all rows together.",
    draw,
)
