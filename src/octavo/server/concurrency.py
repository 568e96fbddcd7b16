"""Limit on the requests in flight, running and waiting together; beyond it they are refused with a measured retry time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from octavo.errors import InvalidRequestError, OverloadedError

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
        """``count`` requests have ended at ``now_s``."""
        slot = int(now_s / self._slot_s)
        if self._slots and self._slots[-1][0] >= slot:
            last, ends = self._slots.pop()
            self._slots.append((last, ends + count))
        else:
            self._slots.append((slot, count))
        self._forget(now_s)

    def per_second(self, now_s: float) -> float:
        """Requests ended per second; 0.0 if nothing ended inside the window. A young server is measured over its own age."""
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


@dataclass(slots=True)
class ConcurrencyLimiter:
    """At most ``capacity`` requests in flight.

    A request counts from ``acquire`` to ``release``, so that a burst that has not reached the engine yet is seen as well.
    """

    capacity: int
    clock: Callable[[], float] = time.monotonic
    num_in_flight: int = 0
    drain: DrainRate = field(init=False)

    def __post_init__(self) -> None:
        self.drain = DrainRate(start_s=self.clock())

    def acquire(self, count: int, num_pending: int) -> None:
        """Let ``count`` requests in; ``num_pending`` is what the engine knows of.

        Raises ``OverloadedError`` while full, ``InvalidRequestError`` if never possible.
        """
        if count > self.capacity:
            raise InvalidRequestError(f"prompts x n: {count} requests at once, at most {self.capacity}", param="n")
        num_in_flight = max(self.num_in_flight, num_pending)
        excess = num_in_flight + count - self.capacity
        if excess > 0:
            wait_s = self.drain.retry_after_s(excess, self.clock())
            raise OverloadedError(
                f"the queue is full: {num_in_flight} requests in flight, {count} more asked for, at most {self.capacity}; "
                f"try again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )
        self.num_in_flight += count

    def release(self) -> None:
        """One request has ended, however."""
        self.num_in_flight -= 1
        self.drain.record(self.clock())
