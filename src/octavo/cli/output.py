"""Terminal output of commands: stdout and stderr consoles, byte and count formats, download progress."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PIPED_WIDTH = 200  # a pipe has no edge: rows of a table stay on one line


def stdout() -> Console:
    """For results."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH, soft_wrap=False)


def stderr() -> Console:
    """For progress, notes and warnings."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPED_WIDTH)


def say(line: str) -> None:
    """One line of progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def format_bytes(num_bytes: int) -> str:
    """``1536`` -> ``1.5 KiB``; three significant digits are enough for a person."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_count(number: int) -> str:
    """``134515008`` -> ``134.5 M``."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return str(number)


class FetchProgress:
    """A model being fetched, as ``octavo.models.registry.find_model`` reports it: a bar on a terminal, else a line a stage."""

    def __init__(self) -> None:
        console = stderr()
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._stage = ""
        self._task: TaskID | None = None

    def __call__(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        if stage != self._stage:
            self._begin(stage, total_bytes)
        if self._task is not None:
            self._bar.update(self._task, completed=done_bytes, total=total_bytes or None)

    def _begin(self, stage: str, total_bytes: int) -> None:
        self._stage = stage
        if self._console.is_terminal:
            if self._task is None:
                self._bar.start()  # only now: nothing flickers when the model is there already
            else:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(stage, total=total_bytes or None)
        else:
            size = f" ({format_bytes(total_bytes)})" if total_bytes else ""
            self._console.print(f"{stage}{size}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bar.stop()
