"""SIGINT handling of interactive commands: the first Ctrl-C stops the response, the second the program."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupt:
    """``with Interrupt() as interrupt``: the first Ctrl-C sets ``wanted``, to be looked at between chunks; the second raises.

    An engine that is interrupted in the middle of a step could not go on with the next message; between chunks it can.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
