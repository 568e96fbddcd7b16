"""Requests in the policy's order: those that wait, and those that run."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from octavo.scheduler.policy import Policy, Rank
from octavo.types import Request


class RankedRequests:
    """Kept sorted where ranks are static; sorted when read where they are not."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._entries: list[tuple[Rank, Request]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in self._entries)

    def add(self, request: Request, now: float) -> None:
        insort(self._entries, (self._policy.rank(request, now), request), key=_rank)

    def remove(self, request: Request, now: float) -> None:
        if self._policy.static:
            at = bisect_left(self._entries, self._policy.rank(request, now), key=_rank)
        else:
            at = next(i for i, (_, other) in enumerate(self._entries) if other is request)
        assert self._entries[at][1] is request, f"{request.request_id} is not where its rank says"
        del self._entries[at]

    def first(self) -> Request | None:
        """The request to start next."""
        return self._entries[0][1] if self._entries else None

    def last(self) -> Request:
        """The request that gives way first. Needs at least one."""
        return self._entries[-1][1]

    def refresh(self, now: float) -> None:
        """Bring ranks that depend on time up to date; call once a step."""
        if not self._policy.static:
            self._entries = sorted(((self._policy.rank(r, now), r) for _, r in self._entries), key=_rank)


def _rank(entry: tuple[Rank, Request]) -> Rank:
    return entry[0]
