"""Static priority: the lower number runs first, arrival breaks ties, and an urgent waiter takes a less urgent one's place."""

from __future__ import annotations

from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.types import Request


class Priority(Fcfs):
    """Preempts only for strictly higher priority, so two requests can never take turns at preempting each other."""

    def rank(self, request: Request, now: float) -> Rank:
        return (request.priority, request.sequence_number)

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        return waiting.priority < running.priority
