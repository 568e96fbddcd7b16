"""An event loop whose clock jumps to the next timer as soon as nothing is left to do: minutes of waiting pass in milliseconds.

Sockets are real. Over Unix sockets what one side writes the other can read at once, so a test of two sides in one loop sees
the same times on every machine, however busy: to the microsecond what was planned.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _JumpingSelector(selectors.SelectSelector):
    """Never waits for a timer: moves ``now_s`` forward instead. Waits a moment for sockets only when there is no timer."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(1.0)
        self.now_s += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    @classmethod
    def current(cls) -> VirtualTimeLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return loop

    def advance(self, seconds: float) -> None:
        """As if a callback had blocked the loop for so long."""
        self._jumping.now_s += seconds


def run_virtual(main: Coroutine[Any, Any, Result]) -> Result:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
