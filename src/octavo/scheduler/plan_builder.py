"""A plan in the making: the shares of the requests that are in, and what is left of the token budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from octavo.types import NewRequest, Plan, PlannedRequest, Request

share_of = partial(tuple.__new__, PlannedRequest)  # what the class does itself, in half the time


@dataclass(slots=True)
class PlanBuilder:
    """``budget``: tokens that are left of this step's."""

    planned_s: float
    now: float  # when the step begins, by the forecast: later than ``planned_s`` while others are in flight
    budget: int
    planned: dict[str, PlannedRequest] = field(default_factory=dict)
    preempted: list[str] = field(default_factory=list)
    gave_way: set[str] = field(default_factory=set)  # not computed in this step: preempted, or about to be
    is_blocked: bool = False  # the head of the queue does not fit: nobody starts in this step any more

    def put(self, request: Request, num_tokens: int, table: list[int]) -> None:
        """Its next ``num_tokens`` tokens are computed."""
        start = request.num_planned_tokens
        self.budget -= num_tokens
        request.num_planned_tokens = end = start + num_tokens
        new = None if request.num_sent_blocks else new_request(request)
        blocks = unsent_blocks(request, table)
        self.planned[request.request_id] = share_of(
            (request.request_id, start, num_tokens, end >= len(request.token_ids), blocks, 0, new)
        )

    def allow_drafts(self, request: Request, num_tokens: int, table: list[int]) -> None:
        """So many drafted tokens may be computed behind its last one; ``table`` has room for them."""
        share = self.planned[request.request_id]
        self.budget -= num_tokens
        request.is_drafting = True
        blocks = share.new_block_ids + unsent_blocks(request, table)
        self.planned[request.request_id] = share._replace(new_block_ids=blocks, num_draft_tokens=num_tokens)

    def take_back(self, request: Request) -> None:
        """It gives way in this step; what was planned for it is undone."""
        self.gave_way.add(request.request_id)
        share = self.planned.pop(request.request_id, None)
        if share is not None:
            self.budget += share.num_tokens
            request.num_planned_tokens = share.start
            request.num_sent_blocks -= len(share.new_block_ids)

    def plan(self, step: int, num_tokens: int, forgotten: tuple[str, ...]) -> Plan:
        """Done. Shares of one token come before longer ones; ``num_tokens`` is what of the budget was used."""
        shares = list(self.planned.values())
        if len(shares) < num_tokens:
            shares = [one for one in shares if one[2] == 1] + [one for one in shares if one[2] > 1]
        return Plan(step, tuple(shares), num_tokens, tuple(self.preempted), forgotten)


def new_request(request: Request) -> NewRequest:
    """What the executor is told at first sight."""
    return NewRequest(
        tuple(request.token_ids), request.num_prompt_tokens, request.params, request.max_tokens, request.stop_ids
    )


def unsent_blocks(request: Request, table: list[int]) -> tuple[int, ...]:
    """The end of its block table that the executor does not know yet; from now on it does."""
    sent, request.num_sent_blocks = request.num_sent_blocks, len(table)
    return tuple(table[sent:])
