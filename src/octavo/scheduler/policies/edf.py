"""Earliest deadline first (Liu & Layland 1973; Jackson 1955): the request whose first token is due first starts first.

Optimal on one machine while all deadlines can be met, and known for its collapse when they cannot: it then works on
those that are lost. Requests without a deadline count as due after their ``max_wait``, else after ``NO_TARGET_S``. Not
preemptive: here a preemption computes the victim's tokens again, which the theorem's preemption does not.
"""

from __future__ import annotations

from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.types import Request

NO_TARGET_S = 60.0


class EarliestDeadlineFirst(Fcfs):
    """Deadlines do not move, so neither do ranks."""

    def rank(self, request: Request, now: float) -> Rank:
        targets = request.service_class
        allowed = [targets.ttft_s, targets.max_wait_s, NO_TARGET_S]
        return (request.arrival_s + next(s for s in allowed if s is not None), request.sequence_number)
