"""SIGTERM during a measurement, handled as Ctrl-C: partial results kept, started servers stopped, exit code 128 + signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_as_interrupt() -> Iterator[Callable[[], int]]:
    """Inside, SIGTERM raises what SIGINT raises. Gives what the signal makes of the exit code: 0 without one."""
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        # A shell's background job, or one under nohup, starts with SIGINT ignored; its default action would end us at once.
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield lambda: 128 + received[0] if received else 0
    finally:
        signal.signal(signal.SIGTERM, before)
