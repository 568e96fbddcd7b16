"""The send schedule: a load plan unrolled as responses come in. Pure: no clock, no I/O.

Open loop: the plan's times. Closed loop: each user takes the first request that nobody took and that follows no other, then the
turns that follow it, then the next. A turn follows the end of the one before by its own ``think_s``.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque

from octavo.bench.types import LoadPlan


class Schedule:
    """``due_s`` / ``pop_due`` say what to send; ``ended`` says what came back."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._turns: dict[int, list[int]] = defaultdict(list)  # request -> those that follow it
        for request in plan.requests:
            if request.after is not None:
                self._turns[request.after].append(request.index)
        roots = [request.index for request in plan.requests if request.after is None]
        self._due: list[tuple[float, int]] = []
        self._untaken: deque[int] = deque()
        if plan.concurrency is None:
            for index in roots:
                send_s = plan.send_s[index]
                assert send_s is not None, "check_plan has seen to it"
                self._push(send_s, index)
        else:
            self._untaken.extend(roots)
            for _ in range(plan.concurrency):
                self._take(0.0)

    @property
    def due_s(self) -> float | None:
        """When the next request is due; None: nothing is, as things stand."""
        return self._due[0][0] if self._due else None

    def pop_due(self, until_s: float) -> tuple[float, int] | None:
        """The earliest (intended time, request) that is due."""
        if self._due and self._due[0][0] <= until_s:
            return heapq.heappop(self._due)
        return None

    def has_turns(self, index: int) -> bool:
        return index in self._turns

    def turns(self, index: int) -> list[int]:
        """Those that follow request ``index``."""
        return self._turns.get(index, [])

    def ended(self, index: int, end_s: float, *, ok: bool, pause_s: float = 0.0) -> list[int]:
        """Request ``index`` ended. Returns the turns that now cannot be sent, as there is no response to go on from.

        A closed loop's user goes on ``pause_s`` later than planned, e.g. when there is nobody to talk to.
        """
        turns = self._turns.get(index, [])
        lost = [] if ok else self._descendants(index)
        followers = turns if ok else []
        for turn in followers:
            self._push(end_s + self._plan.requests[turn].think_s, turn)
        if self._plan.concurrency is not None and not followers:
            self._take(end_s + self._plan.think_s + pause_s)
        return lost

    def unsent(self) -> list[int]:
        """What is due later and what no user took, in the plan's order: all that would still be sent."""
        waiting = sorted({index for _, index in self._due} | set(self._untaken))
        return sorted({*waiting, *(turn for index in waiting for turn in self._descendants(index))})

    def stop(self) -> None:
        self._due.clear()
        self._untaken.clear()
        self._turns.clear()

    def _take(self, at_s: float) -> None:
        """A user goes on with the next untaken request."""
        if self._untaken:
            self._push(at_s, self._untaken.popleft())

    def _push(self, at_s: float, index: int) -> None:
        if self._plan.duration_s is None or at_s < self._plan.duration_s:
            heapq.heappush(self._due, (at_s, index))

    def _descendants(self, index: int) -> list[int]:
        found: list[int] = []
        stack = list(self._turns.get(index, []))
        while stack:
            turn = stack.pop()
            found.append(turn)
            stack.extend(self._turns.get(turn, []))
        return found
