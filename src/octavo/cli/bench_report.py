"""``octavo bench report``: results as one HTML page that works offline, and every figure as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo.errors import BenchError, ConfigError
from octavo.extras import require


def register(bench: typer.Typer) -> None:
    bench.command("report", short_help="One self-contained page with the figures of results.")(report)


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Result files of run, sweep, suite, peers; runs are compared by name", metavar="A.json ..."
        ),
    ],
    html: Annotated[Path, typer.Option(help="The page", metavar="FILE")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="Write every figure into this folder, too", metavar="DIR")
    ] = None,
    formats: Annotated[str, typer.Option("--format", help="Of those files: svg, png or svg,png")] = "svg",
) -> None:
    """One HTML page that works offline: verdict, figures with intervals, errors, where it all comes from.

    Several runs are also shown side by side, those of different names compared with the first name, those of one name at
    several rates as a curve. Example: octavo bench report results/*.json --html report.html --figures figures --format png
    """
    require("scipy", "the intervals of a report need")
    require("matplotlib", "the plots of a report need")
    from octavo.bench.report.files import read
    from octavo.bench.result import write_whole
    from octavo.cli.output import stdout

    found = read(results)
    from octavo.bench import plots as drawing
    from octavo.bench.report.page import render, sections
    from octavo.bench.report.parts import Pen

    wanted = tuple(dict.fromkeys(part.strip() for part in formats.split(",")))
    if unknown := [one for one in wanted if one not in drawing.FORMATS]:
        raise ConfigError(f"unknown format {unknown[0]!r}; known: {', '.join(drawing.FORMATS)}", param="format")
    page = sections(found, Pen(wanted if figures is not None else ()))
    pictures = [picture for section in page for picture in section.pictures]
    try:
        write_whole(html, render(page).encode())
        if figures is not None:
            for picture in pictures:
                for form in wanted:
                    write_whole(figures / f"{picture.key}.{form}", picture.files[form])
    except OSError as error:
        raise BenchError(f"cannot write {error.filename or html}: {error.strerror}") from None
    beside = f", the same as files in {figures}" if figures is not None else ""
    stdout().print(f"{html}: {len(pictures)} figures{beside}", soft_wrap=True, markup=False)
