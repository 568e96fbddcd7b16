"""Hang detection (pending work, no finished step) and restart limit with back-off; time is an argument."""

from __future__ import annotations

from collections import deque

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0


class ProgressWatch:
    """How long has pending work seen no finished step?

    Time is added tick by tick, each tick counting at most twice its planned length. So if the server itself stood still
    (a blocked event loop, SIGSTOP, a sleeping laptop), the engine is not blamed for reports that nobody read.
    """

    def __init__(self, hang_timeout_s: float) -> None:
        self.hang_timeout_s = hang_timeout_s
        self.interval_s = min(1.0, hang_timeout_s / 10)
        self._silence_s = 0.0
        self._last_tick_s: float | None = None

    def progressed(self) -> None:
        """A step finished, or work became pending: the wait begins anew."""
        self._silence_s = 0.0

    def tick(self, now: float, num_pending: int) -> None:
        """To be called about every ``interval_s`` by the loop that also reads the reports."""
        passed_s = 0.0 if self._last_tick_s is None else now - self._last_tick_s
        self._last_tick_s = now
        self._silence_s = self._silence_s + min(passed_s, 2 * self.interval_s) if num_pending else 0.0

    @property
    def hung(self) -> str | None:
        """What is wrong, or None."""
        if self._silence_s < self.hang_timeout_s:
            return None
        return f"the engine has pending work and finished no step for {self._silence_s:.1f} s"


class RestartBudget:
    """At most ``max_restarts`` within ``window_s``; more deaths than that are no accident."""

    def __init__(self, max_restarts: int, window_s: float) -> None:
        self.max_restarts = max_restarts
        self.window_s = window_s
        self._deaths_s: deque[float] = deque()

    @property
    def num_recent(self) -> int:
        """Deaths in the window that ended at the last ``died``."""
        return len(self._deaths_s)

    def died(self, now: float) -> bool:
        """Record a death; True if the engine may be started again."""
        self._deaths_s.append(now)
        while self._deaths_s[0] <= now - self.window_s:
            self._deaths_s.popleft()
        return len(self._deaths_s) <= self.max_restarts

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next start: doubles with every recent death."""
        return float(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (self.num_recent - 1)))
