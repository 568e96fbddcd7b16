"""Priority: the lower number runs first, arrival breaks ties, and an urgent waiter takes a less urgent one's place.

Static as in vLLM, where it starves the less urgent for as long as urgent ones come; or with ageing (as old as
time-sharing, e.g. Kleinrock, "Queueing Systems" II, 3.7): waiting for ``AGEING_S`` is worth one level. All age at the
same speed, so the order of two requests never changes and can be written without the time: priority x AGEING_S +
arrival.
"""

from __future__ import annotations

from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.types import Request

AGEING_S = 10.0  # seconds of waiting that are worth one level of priority


class Priority(Fcfs):
    """Preempts only for strictly higher priority, so two requests can never take turns at preempting each other."""

    def rank(self, request: Request, now: float) -> Rank:
        return (request.priority, request.sequence_number)

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        return waiting.priority < running.priority


class AgeingPriority(Fcfs):
    """Preempts for a whole level, age included."""

    def rank(self, request: Request, now: float) -> Rank:
        return (request.priority * AGEING_S + request.arrival_s, request.sequence_number)

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        return bool(self.rank(waiting, now)[0] + AGEING_S <= self.rank(running, now)[0])
