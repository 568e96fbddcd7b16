"""Flags, package check and output shared by ``octavo bench suite`` and ``octavo bench peers``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from octavo.extras import require

Rows = Annotated[str, typer.Option(help="Only these rows: name,name (see docs/bench.md)", metavar="NAMES")]
Out = Annotated[Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")]
Markdown = Annotated[Path | None, typer.Option(help="Write the table as Markdown.", metavar="FILE")]
Seed = Annotated[int, typer.Option(help="Of the random prompts.", min=0)]


def check_packages() -> None:
    """Before anything is started: raises ``MissingPackageError`` where what measures is not installed."""
    require("torch", "the calibration of the machine needs")
    require("scipy", "`octavo bench` needs")


def write(out: Path | None, result: Any) -> None:
    """As JSON, whole or not at all."""
    import msgspec

    from octavo.bench.result import write_whole

    if out is not None:
        write_whole(out, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def finish(result: Any, out: Path | None, markdown: Path | None) -> None:
    """Files first, then the table."""
    from octavo.bench import suite_table as tables
    from octavo.bench.result import write_whole
    from octavo.bench.suite import SuiteResult
    from octavo.cli.output import stdout

    write(out, result)
    page = tables.suite_markdown(result) if isinstance(result, SuiteResult) else tables.peers_markdown(result)
    if markdown is not None:
        write_whole(markdown, page.encode())
    console = stdout()
    if isinstance(result, SuiteResult):
        console.print(tables.suite_grid(result.rows, result.http_over_offline).rich())
    else:
        console.print(tables.servers_grid(result).rich())
        console.print(tables.peers_grid(result).rich())
    notes = tables.notes_lines(result.rows)
    if isinstance(result, SuiteResult):
        console.print(tables.model_line(result.model), markup=False, soft_wrap=True)
    for line in [tables.machine_line(result.calibrations), *tables.limits_lines(result.rows), *notes, *result.notes]:
        console.print(line, markup=False, soft_wrap=True)
