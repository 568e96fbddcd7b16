"""Report section on suites and comparisons of servers: the tables of ``suite_table``, with plots."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.bench.peers import PeersResult
from octavo.bench.plots import PEERS_PLOTS, SCENARIO_PLOTS
from octavo.bench.report.parts import Pen, Section, Table, machine_text
from octavo.bench.suite import ScenarioResult, SuiteResult
from octavo.bench.suite_table import (
    Grid,
    limits_lines,
    machine_line,
    model_line,
    notes_lines,
    peers_grid,
    servers_grid,
    suite_grid,
)

OVER = "Medians (lowest..highest) over repetitions"


def suite_section(result: SuiteResult, key: str, pen: Pen) -> Section:
    return Section(
        key=key,
        title=f"Suite {result.suite}: {result.model.name if result.model else 'unknown model'}",
        verdict=_verdict(result),
        bad=not result.complete,
        doubts=_failures(result.rows),
        facts=[("model", model_line(result.model)), ("machine measured", machine_line(result.calibrations))],
        provenance=_provenance(result),
        tables=[_table(OVER, suite_grid(result.rows, result.http_over_offline))],
        notes=[*limits_lines(result.rows), *notes_lines(result.rows), *result.notes],
        pictures=pen.draw(key, SCENARIO_PLOTS, result.rows),
    )


def peers_section(result: PeersResult, key: str, pen: Pen) -> Section:
    ratios = "Ratios: to the first server, of the same round; Student's interval of the logarithms."
    return Section(
        key=key,
        title=f"Side by side: {', '.join(peer.name for peer in result.peers)}",
        verdict=_verdict(result),
        bad=not result.complete,
        doubts=[*(f"{peer.name} is gone: {peer.dead}" for peer in result.peers if peer.dead), *_failures(result.rows)],
        facts=[("prompts", result.form), ("machine measured", machine_line(result.calibrations))],
        provenance=_provenance(result),
        tables=[_table("Servers", servers_grid(result), 99), _table(OVER, peers_grid(result))],
        notes=[ratios, *notes_lines(result.rows), *result.notes],
        pictures=pen.draw(key, PEERS_PLOTS, result),
    )


def _verdict(result: SuiteResult | PeersResult) -> str:
    return "COMPLETE" if result.complete else "INCOMPLETE: it was stopped before its end"


def _failures(rows: Sequence[ScenarioResult]) -> list[str]:
    return [f"{row.row}, {row.target}: {row.num_failed} requests failed" for row in rows if row.num_failed]


def _table(title: str, grid: Grid, num_text: int = 2) -> Table:
    return Table(title, grid.headings, grid.rows, num_text=num_text)


def _provenance(result: SuiteResult | PeersResult) -> list[tuple[str, str]]:
    return [
        ("command", result.command),
        ("date", result.created),
        ("commit", result.commit or "unknown"),
        ("octavo", result.octavo_version),
        ("machine", machine_text(result.machine)),
        ("seed", str(result.seed)),
    ]
