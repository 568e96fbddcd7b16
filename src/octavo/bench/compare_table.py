"""The table of a ``Comparison`` for the terminal."""

from __future__ import annotations

import statistics

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from octavo.bench.compare import Comparison
from octavo.bench.types import Interval

STYLES = {"faster": "bold green", "slower": "bold red"}


def render(comparison: Comparison) -> RenderableType:
    """One line per metric and label: medians over runs, ratio with interval, corrected p-value, verdict; then the warnings."""
    runs = ", ".join(f"{label} {number}" for label, number in comparison.num_runs.items())
    table = Table(title=f"against {comparison.baseline} (valid runs: {runs})", title_justify="left")
    for name in ("metric", comparison.baseline, "", "ratio, 95 % interval", "p (Holm)", "verdict"):
        table.add_column(name, justify="left" if name in ("metric", "verdict") else "right")
    for row in comparison.rows:
        table.add_row(
            row.metric,
            middle(row.baseline_values, row.unit),
            f"{row.label} {middle(row.values, row.unit)}",
            ratio_text(row.ratio),
            f"{row.corrected_p_value:.3f}",
            Text(row.verdict, STYLES.get(row.verdict, "")),
        )
    notes = [Text(f"! {warning}", "yellow") for warning in comparison.warnings]
    return Group(table, *(Text(line) for line in legend(comparison)), *notes)


def legend(comparison: Comparison) -> list[str]:
    """How to read the table, and what is not in it."""
    more = sorted({row.metric for row in comparison.rows if row.more_is_better})
    directions = f"; more is better in {', '.join(more)}" if more else ""
    words = f"ratio = label / {comparison.baseline}; a verdict needs p (Holm) <= {comparison.level:g}{directions}"
    return [words, *(f"not tested: {name}, {why}" for name, why in comparison.left_out.items())]


def ratio_text(ratio: Interval) -> str:
    if ratio.value is None:
        return "-"
    low, high = ("?" if bound is None else f"{bound:.3f}" for bound in (ratio.low, ratio.high))
    return f"{ratio.value:.3f} ({low} .. {high})"


def middle(values: list[float], unit: str) -> str:
    """Median over runs."""
    median = statistics.median(values)
    if unit == "s":
        return f"{median * 1e3:.4g} ms"
    return f"{median:.4g} {unit}"
