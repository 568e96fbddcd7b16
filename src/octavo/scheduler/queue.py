"""Request queues of the scheduler: ordered by policy rank; running and waiting requests."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from octavo.kvcache.cache import KVCache
from octavo.scheduler.policy import Policy, Rank
from octavo.types import Request


class SortedLine:
    """Each request stays at the rank it was added with, whatever it would be given now. O(log n) to find, add and remove."""

    def __init__(self) -> None:
        self._entries: list[tuple[Rank, Request]] = []
        self._rank_of: dict[str, Rank] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in self._entries)

    def __contains__(self, request: Request) -> bool:
        return request.request_id in self._rank_of

    def add(self, request: Request, rank: Rank) -> None:
        """``rank`` must be distinct."""
        self._rank_of[request.request_id] = rank
        insort(self._entries, (rank, request), key=_rank)

    def remove(self, request: Request) -> None:
        at = bisect_left(self._entries, self._rank_of.pop(request.request_id), key=_rank)
        assert self._entries[at][1] is request, f"{request.request_id} is not where its rank says"
        del self._entries[at]

    def first(self) -> Request | None:
        return self._entries[0][1] if self._entries else None

    def first_rank(self) -> Rank | None:
        return self._entries[0][0] if self._entries else None


class RunningRequests:
    """Kept sorted where ranks are static; sorted once a step where they are not."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._entries: list[tuple[Rank, Request]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in self._entries)

    def split(self) -> tuple[list[Request], list[Request]]:
        """Those with one token to compute, and those with more, each in order. One whose known tokens are all planned for
        goes on with the token that the step in flight samples, unless that is its last or it may turn out to be several."""
        decodes: list[Request] = []
        prefills: list[Request] = []
        for _, request in self._entries:
            planned = request.num_planned_tokens
            left = len(request.token_ids) - planned
            if left > 1:
                prefills.append(request)
            elif left == 1 or (
                not request.is_drafting and planned + 1 < request.num_prompt_tokens + request.max_tokens
            ):
                decodes.append(request)
        return decodes, prefills

    def backwards(self, behind: Rank = ()) -> Iterator[Request]:
        """From the one that gives way first to the last one whose rank is above ``behind``."""
        for rank, request in reversed(self._entries):
            if rank <= behind:
                return
            yield request

    def add(self, request: Request, now: float) -> None:
        insort(self._entries, (self._policy.rank(request, now), request), key=_rank)

    def remove(self, request: Request) -> None:
        at = next(i for i, (_, other) in enumerate(self._entries) if other is request)
        del self._entries[at]

    def refresh(self, now: float) -> None:
        """Bring ranks that depend on time or service up to date; call once a step."""
        if not self._policy.static:
            rank = self._policy.rank
            self._entries = [(rank(request, now), request) for _, request in self._entries]
            self._entries.sort(key=_rank)

    def check(self, kv: KVCache) -> None:
        """AssertionError if one has nothing left to compute, or no room for what is planned."""
        for _, request in self._entries:
            name, table = request.request_id, kv.block_table(request.request_id)
            assert request.num_computed_tokens < len(request.token_ids), f"{name} has nothing left to compute"
            assert len(table) * kv.block_size >= request.num_planned_tokens, f"{name} outgrew its table"
            assert request.num_sent_blocks <= len(table), f"{name}: more blocks sent than it has"


class WaitingRequests:
    """The policy knows their order; those that were preempted ``max_preemptions`` times come before, in order of arrival."""

    def __init__(self, policy: Policy, max_preemptions: int) -> None:
        self._policy = policy
        self._max_preemptions = max_preemptions
        self._requests: dict[str, Request] = {}
        self._non_preemptible: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        """In no order."""
        return iter(self._requests.values())

    def is_non_preemptible(self, request: Request) -> bool:
        """Nobody takes its place any more, nor goes before it."""
        return request.num_preemptions >= self._max_preemptions

    def add(self, request: Request, now: float) -> None:
        request.waiting_since_s = now
        self._requests[request.request_id] = request
        if self.is_non_preemptible(request):
            insort(self._non_preemptible, request, key=_seniority)
        else:
            self._policy.add(request, now)

    def remove(self, request: Request, now: float) -> None:
        del self._requests[request.request_id]
        if self.is_non_preemptible(request):
            self._non_preemptible.remove(request)
        else:
            self._policy.remove(request, now)

    def first(self, now: float) -> Request | None:
        """Who starts next."""
        return self._non_preemptible[0] if self._non_preemptible else self._policy.first(now)

    def check(self, now: float) -> None:
        """AssertionError if one is lost."""
        fixed = [request for request in self._requests.values() if self.is_non_preemptible(request)]
        assert len(fixed) == len(self._non_preemptible) and all(one in self._non_preemptible for one in fixed), (
            "a non-preemptible one is lost"
        )
        first = self._policy.first(now)
        assert (first is None) == (len(fixed) == len(self._requests)), "the policy lost one that waits"
        assert first is None or self._requests.get(first.request_id) is first, (
            "the policy offers one that does not wait"
        )


def _seniority(request: Request) -> int:
    return request.sequence_number


def _rank(entry: tuple[Rank, Request]) -> Rank:
    return entry[0]
