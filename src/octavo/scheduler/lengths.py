"""Output-length prediction: a quantile of what the tenant's recent requests of that class generated.

The client's ``max_tokens`` only caps the answer: clients state it generously, and one that lies about it gains nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from octavo.types import Request

MEMORY = 64  # recent outputs per tenant and class
ENOUGH = 8  # fewer say little: the class's outputs over all tenants are asked instead, then everybody's


class LengthForecast(Protocol):
    """Total output tokens of a request; always above those it has, at most ``max_tokens``."""

    def predict(self, request: Request) -> int: ...

    def observe(self, request: Request) -> None:
        """The request has ended by itself: this was its output."""
        ...


class RecentQuantile:
    """The ``quantile`` of recent outputs: of the tenant and class, else of the class, else of all."""

    def __init__(self, quantile: float = 0.75, unknown: int = 256) -> None:
        self._quantile = quantile
        self._unknown = unknown
        self._recent: dict[tuple[str, ...], _Recent] = {}

    def predict(self, request: Request) -> int:
        for key in _keys(request):
            recent = self._recent.get(key)
            if recent is not None and len(recent.ordered) >= ENOUGH:
                return _within(request, recent.ordered[int(self._quantile * (len(recent.ordered) - 1))])
        return _within(request, self._unknown)

    def observe(self, request: Request) -> None:
        for key in _keys(request):
            self._recent.setdefault(key, _Recent()).add(request.num_output_tokens)


class Oracle:
    """The truth, by request id: what a perfect forecast would be worth. For comparisons."""

    def __init__(self, outputs: Mapping[str, int]) -> None:
        self._outputs = outputs

    def predict(self, request: Request) -> int:
        return _within(request, self._outputs.get(request.request_id, request.max_tokens))

    def observe(self, request: Request) -> None:
        pass  # it knew


class NoForecast:
    """What the client allows is what is expected."""

    def predict(self, request: Request) -> int:
        return request.max_tokens

    def observe(self, request: Request) -> None:
        pass  # it does not learn


class _Recent:
    """The last ``MEMORY`` values, also in order of size."""

    def __init__(self) -> None:
        self.ordered: list[int] = []
        self._arrived: deque[int] = deque()

    def add(self, value: int) -> None:
        insort(self.ordered, value)
        self._arrived.append(value)
        if len(self._arrived) > MEMORY:
            del self.ordered[bisect_left(self.ordered, self._arrived.popleft())]


def _keys(request: Request) -> tuple[tuple[str, ...], ...]:
    name = request.service_class.name
    return (name, request.tenant), (name,), ()


def _within(request: Request, num_tokens: int) -> int:
    return min(max(num_tokens, request.num_output_tokens + 1), request.max_tokens)
