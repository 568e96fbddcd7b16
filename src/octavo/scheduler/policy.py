"""``Policy``: the protocol between the scheduler and its scheduling policies.

A policy decides four things: the order in which requests start, the order in which running ones are served (the last
gives way first), how many tokens a step computes, and who may take whose place. The scheduler does the rest. A policy
is pure: time comes as an argument, and all it keeps is what these methods told it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from octavo.scheduler.forecast import Forecast
from octavo.types import Request

Rank = tuple[Any, ...]


class Policy(Protocol):
    """WHO runs next. Ranks are compared as tuples: the lowest is served first, the highest gives way first."""

    forecast: Forecast
    static: bool  # a running request's rank never changes: then they are kept sorted instead of sorted each step

    # -- those that wait -----------------------------------------------------------------------------------------------

    def add(self, request: Request, now: float) -> None:
        """It waits from now on: it is new, or it was preempted."""
        ...

    def remove(self, request: Request, now: float) -> None:
        """It waits no longer: it starts, or it ended."""
        ...

    def first(self, now: float) -> Request | None:
        """Who of those that wait starts next; None only if nobody waits. Nobody overtakes it while it does not fit."""
        ...

    # -- those that run ------------------------------------------------------------------------------------------------

    def rank(self, request: Request, now: float) -> Rank:
        """Also asked of a waiting request, to compare it with running ones. Distinct: ends with ``sequence_number``."""
        ...

    def token_budget(
        self, decodes: Sequence[Request], prefills: Sequence[Request], max_step_tokens: int, now: float
    ) -> int:
        """Tokens that this step should compute. The scheduler keeps it between one per decode and ``max_step_tokens``."""
        ...

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        """May ``waiting`` take the place of ``running``, which ranks behind it?"""
        ...

    # -- accounts ------------------------------------------------------------------------------------------------------

    def started(self, request: Request, now: float) -> None:
        """It runs from now on, for the first time or again; ``num_computed_tokens`` of it were in the prefix cache."""
        ...

    def committed(self, request: Request, num_tokens: int, num_sampled: int, now: float) -> None:
        """``num_tokens`` were computed for it (and counted in ``num_computed_tokens``), ``num_sampled`` new ones made."""
        ...

    def ended(self, request: Request, now: float) -> None:
        """It is gone, however it ended."""
        ...
