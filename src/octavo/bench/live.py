"""Live progress table in the terminal during a run; without a terminal, a line now and then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from octavo.bench.client.progress import Observer, Progress

LINE_EVERY_S = 5.0
LAG_LIMIT_S = 0.005
MAX_ERROR_CHARS = 80


@contextmanager
def live_view(title: str, console: Console | None = None) -> Iterator[Observer]:
    """An observer for ``run_plan``; the screen is its own as long as the context is open. Writes to stderr by default."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Lines(title, console)
        return
    # No thread of its own: it would take the interpreter from the client in the middle of a send.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield View(title, live)


class View:
    def __init__(self, title: str, live: Live) -> None:
        self._title = title
        self._live = live

    def progress(self, now: Progress) -> None:
        self._live.update(table(self._title, now), refresh=True)


class Lines:
    """For logs and pipes."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._console = console
        self._next_s = 0.0

    def progress(self, now: Progress) -> None:
        if now.elapsed_s >= self._next_s:
            self._next_s = now.elapsed_s + LINE_EVERY_S
            self._console.print(f"{self._title}: {line(now)}", soft_wrap=True, highlight=False, markup=False)


def line(now: Progress) -> str:
    """Everything in one line."""
    parts = [
        _how_far(now),
        f"{now.sent} sent",
        f"{now.in_flight} in flight",
        f"{now.ok} ok, {now.failed} failed, {now.timed_out} timed out",
        f"{now.rate_rps:.2f} requests/s",
        f"{now.output_tokens_per_s:.0f} tokens/s",
        f"TTFT {_ms(now.ttft_p50_s)}",
        f"TPOT {_ms(now.tpot_p50_s)}",
        f"client lag p99 {_ms(now.lag_p99_s)}",
    ]
    if now.last_error:
        parts.append(f"last error: {now.last_error[:MAX_ERROR_CHARS]}")
    return ", ".join(parts)


def table(title: str, now: Progress) -> Table:
    grid = Table.grid(padding=(0, 2))
    bad = now.failed + now.timed_out
    late = now.lag_p99_s is not None and now.lag_p99_s > LAG_LIMIT_S
    grid.add_row(Text(title, style="bold"), _how_far(now))
    grid.add_row("requests", f"{now.sent} of {now.planned} sent, {now.in_flight} in flight, {now.ok} answered")
    grid.add_row("errors", Text(f"{now.failed} failed, {now.timed_out} timed out", style="red" if bad else ""))
    grid.add_row("rate", f"{now.rate_rps:.2f} requests/s, {now.output_tokens_per_s:.0f} output tokens/s")
    grid.add_row("median so far", f"TTFT {_ms(now.ttft_p50_s)}, TPOT {_ms(now.tpot_p50_s)}")
    grid.add_row("client lag p99", Text(_ms(now.lag_p99_s), style="red" if late else ""))
    if now.last_error:
        grid.add_row("last error", Text(now.last_error[:MAX_ERROR_CHARS], style="red"))
    return grid


def _how_far(now: Progress) -> str:
    if now.duration_s is None:
        return f"{now.elapsed_s:.0f} s"
    return f"{now.elapsed_s:.0f} of {now.duration_s:.0f} s"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"
