"""Rate at which requests end, over a sliding window; the ``Retry-After`` of a full queue comes from it."""

from __future__ import annotations

import math
from collections import deque

MAX_RETRY_AFTER_S = 120.0


class DrainRate:
    """Requests ended per second over the last ``window_s`` seconds. Pure: the caller brings the time.

    Ends are counted in slots of a tenth of the window, so memory does not grow with the rate.
    """

    def __init__(self, window_s: float = 20.0, start_s: float = 0.0) -> None:
        self._window_s = window_s
        self._slot_s = window_s / 10
        self._start_s = start_s
        self._slots: deque[tuple[int, int]] = deque()  # (slot number, ends), oldest first

    def record(self, now_s: float, count: int = 1) -> None:
        slot = int(now_s / self._slot_s)
        if self._slots and self._slots[-1][0] >= slot:
            last, ends = self._slots.pop()
            self._slots.append((last, ends + count))
        else:
            self._slots.append((slot, count))
        self._forget(now_s)

    def per_second(self, now_s: float) -> float:
        """Ends per second; 0.0 if nothing ended inside the window. A young server is measured over its own age."""
        self._forget(now_s)
        span_s = max(self._slot_s, min(self._window_s, now_s - self._start_s))
        return sum(ends for _, ends in self._slots) / span_s

    def retry_after_s(self, num_excess: int, now_s: float) -> float:
        """Whole seconds until ``num_excess`` requests will have ended, between 1 and ``MAX_RETRY_AFTER_S``.

        Without a measurement it is the window itself: nothing has ended for that long.
        """
        rate = self.per_second(now_s)
        wait_s = num_excess / rate if rate > 0 else min(self._window_s, max(1.0, now_s - self._start_s))
        return float(math.ceil(min(max(wait_s, 1.0), MAX_RETRY_AFTER_S)))

    def _forget(self, now_s: float) -> None:
        oldest = int((now_s - self._window_s) / self._slot_s)
        while self._slots and self._slots[0][0] <= oldest:
            self._slots.popleft()
