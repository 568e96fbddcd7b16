"""The protocol between the scheduler and its policies.

A policy decides order, budget and who gives way; the scheduler does the rest. It is pure: time comes as an argument, and
all it keeps is what ``committed`` tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from octavo.types import Request

Rank = tuple[Any, ...]


class Policy(Protocol):
    """WHO runs next. Ranks are compared as tuples: the lowest runs first, the highest gives way first."""

    static: bool  # a request's rank never changes: the waiting queue is then kept sorted instead of sorted each step

    def rank(self, request: Request, now: float) -> Rank:
        """Must be distinct: end it with ``request.sequence_number``."""
        ...

    def token_budget(self, running: Sequence[Request], max_step_tokens: int, now: float) -> int:
        """How many tokens this step may compute, at most ``max_step_tokens``."""
        ...

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        """May ``waiting`` take the place of ``running``, which ranks behind it?"""
        ...

    def committed(self, request: Request, num_tokens: int, now: float) -> None:
        """``num_tokens`` were computed for the request: for policies that account for service."""
        ...
