"""First come, first served. A preempted request keeps its arrival, hence its place before everybody who came later."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.scheduler.policy import Rank
from octavo.types import Request


class Fcfs:
    """Order of arrival; nobody running gives way to somebody waiting."""

    static = True

    def rank(self, request: Request, now: float) -> Rank:
        return (request.sequence_number,)

    def token_budget(self, running: Sequence[Request], max_step_tokens: int, now: float) -> int:
        return max_step_tokens

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        return False

    def committed(self, request: Request, num_tokens: int, now: float) -> None:
        pass  # arrival order needs no accounts
