"""First come, first served; a preempted request keeps its place.

Also the base of the other policies, which change what they do otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policy import Rank
from octavo.scheduler.queue import SortedLine
from octavo.types import Request


class Fcfs:
    """Order of arrival; nobody running gives way to somebody waiting; a step computes as much as it may."""

    static = True

    def __init__(self, forecast: Forecast) -> None:
        self.forecast = forecast
        self._line = SortedLine()

    def add(self, request: Request, now: float) -> None:
        self._line.add(request, self.rank(request, now))

    def remove(self, request: Request, now: float) -> None:
        self._line.remove(request)

    def first(self, now: float) -> Request | None:
        return self._line.first()

    def rank(self, request: Request, now: float) -> Rank:
        return (request.sequence_number,)

    def token_budget(
        self, decodes: Sequence[Request], prefills: Sequence[Request], max_step_tokens: int, now: float
    ) -> int:
        return max_step_tokens

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        return False

    def started(self, request: Request, now: float) -> None:
        pass  # arrival order needs no accounts

    def committed(self, request: Request, num_tokens: int, num_sampled: int, now: float) -> None:
        pass

    def ended(self, request: Request, now: float) -> None:
        pass
