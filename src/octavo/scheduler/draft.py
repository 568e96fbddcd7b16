"""A plan in the making: who is in, how much of the budget is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from octavo.types import Plan, PlannedRequest, Request

share_of = partial(tuple.__new__, PlannedRequest)  # what the class does itself, in half the time


@dataclass(slots=True)
class Draft:
    """``budget``: tokens that are left of this step's."""

    now: float
    budget: int
    planned: dict[str, PlannedRequest] = field(default_factory=dict)
    preempted: list[str] = field(default_factory=list)
    blocked: bool = False  # the head of the queue does not fit: nobody starts in this step any more

    def put(self, request: Request, num_tokens: int, table: list[int]) -> None:
        """Its next ``num_tokens`` tokens are computed."""
        start = request.num_computed_tokens
        self.budget -= num_tokens
        samples = start + num_tokens == len(request.token_ids)
        self.planned[request.request_id] = share_of((request, start, num_tokens, table, samples))

    def plan(self, step: int, num_tokens: int) -> Plan:
        """Done. Shares of one token come before longer ones; ``num_tokens`` is what of the budget was used."""
        shares = list(self.planned.values())
        if len(shares) < num_tokens:
            shares = [one for one in shares if one[2] == 1] + [one for one in shares if one[2] > 1]
        return Plan(step=step, requests=tuple(shares), num_tokens=num_tokens, preempted=tuple(self.preempted))
