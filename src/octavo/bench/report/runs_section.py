"""Report sections on several runs: all in one table, pairwise comparisons, latency against load."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.bench.compare import Comparison, compare
from octavo.bench.compare_table import legend, middle, ratio_text
from octavo.bench.plots import COMPARISON_PLOTS, RUNS_PLOTS, SWEEP_PLOTS
from octavo.bench.plots.data import Series, offered_rps, series_name, series_of
from octavo.bench.report.parts import Cell, Pen, Section, Table, bounded
from octavo.bench.report.run_section import verdict
from octavo.bench.run_table import knee_line
from octavo.bench.suite_table import NOTHING
from octavo.bench.sweep import knee_of
from octavo.bench.types import Run
from octavo.errors import BenchError


def runs_section(runs: Sequence[Run], keys: Sequence[str], pen: Pen) -> Section:
    """The table of runs; ``keys``: the sections that tell more of each."""
    bad = [run for run in runs if not run.valid]
    rows = [(run.name or NOTHING, _short(run), run.created[:19], *_metrics(run)) for run in runs]
    return Section(
        key="runs",
        title="All runs",
        verdict=f"{len(bad)} of {len(runs)} runs are INVALID" if bad else f"all {len(runs)} runs are VALID",
        bad=bool(bad),
        doubts=[f"{run.name}, {run.created}: {verdict(run)}" for run in bad],
        tables=[Table("", ("run", "verdict", "date", *FIGURES), rows, num_text=3, links=tuple(keys))],
        pictures=pen.draw("runs", RUNS_PLOTS, runs),
    )


FIGURES = (
    "ok",
    "failed",
    "TTFT p50 [ms]",
    "TTFT p99 [ms]",
    "TPOT p50 [ms]",
    "E2E p50 [ms]",
    "output tokens/s",
    "goodput [1/s]",
)


def _metrics(run: Run) -> tuple[Cell, ...]:
    summary = run.summary
    return (
        str(run.requests.ok),
        str(run.requests.failed + run.requests.timed_out),
        bounded(summary.ttft_s.p50, 1e3),
        bounded(summary.ttft_s.p99, 1e3),
        bounded(summary.tpot_s.p50, 1e3),
        bounded(summary.e2e_s.p50, 1e3),
        bounded(summary.output_tokens_per_s),
        bounded(summary.goodput_rps),
    )


def comparison_sections(runs: Sequence[Run], pen: Pen) -> list[Section]:
    """Runs of different names against the first name; of sweeps, at each rate that several of them have."""
    groups: dict[float | None, dict[str, list[Run]]] = {}
    by_rate = any(series.is_sweep for series in series_of(runs))
    for run in runs:
        rate = offered_rps(run) if by_rate else None
        groups.setdefault(rate, {}).setdefault(series_name(run), []).append(run)
    found = [(rate, named) for rate, named in groups.items() if len(named) > 1]
    return [
        _comparison(f"comparison-{number}", "" if rate is None else f" at {rate:g} requests/s", named, pen)
        for number, (rate, named) in enumerate(found, 1)
    ]


def _comparison(key: str, where: str, named: dict[str, list[Run]], pen: Pen) -> Section:
    title = f"Against {next(iter(named))}{where}"
    try:
        compared = compare(named)
    except BenchError as error:
        return Section(key=key, title=title, doubts=[f"not compared: {error.message}"])
    shown = [row for row in compared.rows if row.verdict != "no difference shown"]
    said = "; ".join(f"{row.label} is {row.verdict} in {row.metric}: {ratio_text(row.ratio)}" for row in shown)
    return Section(
        key=key,
        title=title,
        verdict=said or "no difference shown",
        doubts=compared.warnings,
        tables=[_comparison_table(compared)],
        notes=legend(compared),
        pictures=pen.draw(key, COMPARISON_PLOTS, compared),
    )


def _comparison_table(compared: Comparison) -> Table:
    runs = ", ".join(f"{label} {count}" for label, count in compared.num_runs.items())
    headings = ("metric", "against", "verdict", compared.baseline, "other", "ratio, 95 % interval", "p (Holm)")
    rows = [
        (
            row.metric,
            row.label,
            row.verdict,
            middle(row.baseline_values, row.unit),
            middle(row.values, row.unit),
            ratio_text(row.ratio),
            f"{row.corrected_p_value:.3f}",
        )
        for row in compared.rows
    ]
    return Table(f"Medians over the valid runs ({runs})", headings, rows, num_text=3)


def sweep_sections(runs: Sequence[Run], pen: Pen) -> list[Section]:
    """One for each name whose runs differ in rate."""
    sweeps = [series for series in series_of(runs) if series.is_sweep]
    return [_sweep(f"sweep-{number}", series, pen) for number, series in enumerate(sweeps, 1)]


def _sweep(key: str, series: Series, pen: Pen) -> Section:
    headings = ("offered [1/s]", "verdict", "answered [1/s]", *FIGURES)
    rows = [(_rate(run), _short(run), bounded(run.summary.request_rate_rps), *_metrics(run)) for run in series.runs]
    return Section(
        key=key,
        title=f"Latency against load: {series.name}",
        verdict=knee_line(knee_of(series.runs)),
        tables=[Table("", headings, rows, num_text=2)],
        pictures=pen.draw(key, SWEEP_PLOTS, series.runs),
    )


def _rate(run: Run) -> str:
    rate = offered_rps(run)
    return NOTHING if rate is None else f"{rate:g}"


def _short(run: Run) -> str:
    return "valid" if run.valid else "INVALID"
