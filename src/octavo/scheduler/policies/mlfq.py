"""Skip-join multi-level feedback queue: short requests first without knowing who is short.

FastServe (Wu et al., NSDI 2026). A request joins at the first level whose quantum covers its prompt, is demoted a level
each time it has used its level's quantum, and returns to the top after waiting for ``STARVED_S``. Deviations: quanta
count tokens instead of time, and a request that gives way to a higher level is recomputed instead of swapped, so that
it gives way a bounded number of times.
"""

from __future__ import annotations

from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.scheduler.queue import SortedLine
from octavo.types import Request

QUANTA = (256, 512, 1024, 2048, 4096)  # tokens at each level; at a last one below them, without limit
STARVED_S = 10.0


class SkipJoinMlfq(Fcfs):
    """One line of waiting requests a level, each in order of arrival."""

    static = False

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._lines = [SortedLine() for _ in range(len(QUANTA) + 1)]
        self._level: dict[str, int] = {}
        self._used: dict[str, int] = {}  # tokens at the present level

    def add(self, request: Request, now: float) -> None:
        level = self._level.get(request.request_id)
        if level is None:
            level = next((i for i, quantum in enumerate(QUANTA) if request.num_prompt_tokens <= quantum), len(QUANTA))
            self._level[request.request_id], self._used[request.request_id] = level, 0
        # by the time it began to wait, so that the head of each line has waited longest
        self._lines[level].add(request, (request.waiting_since_s, request.sequence_number))

    def remove(self, request: Request, now: float) -> None:
        self._lines[self._level[request.request_id]].remove(request)

    def first(self, now: float) -> Request | None:
        heads = [line.first() for line in self._lines]
        starved = [one for one in heads if one is not None and now - one.waiting_since_s > STARVED_S]
        if starved:
            return min(starved, key=lambda one: one.waiting_since_s)
        return next((one for one in heads if one is not None), None)

    def rank(self, request: Request, now: float) -> Rank:
        waits = request in self._lines[self._level[request.request_id]]
        level = 0 if waits and now - request.waiting_since_s > STARVED_S else self._level[request.request_id]
        return (level, request.sequence_number)

    def may_preempt(self, waiting: Request, running: Request, now: float) -> bool:
        return bool(self.rank(waiting, now)[0] < self.rank(running, now)[0])

    def started(self, request: Request, now: float) -> None:
        if now - request.waiting_since_s > STARVED_S:
            self._level[request.request_id], self._used[request.request_id] = 0, 0

    def committed(self, request: Request, num_tokens: int, num_sampled: int, now: float) -> None:
        level = self._level[request.request_id]
        used = self._used[request.request_id] + num_tokens
        if level < len(QUANTA) and used > QUANTA[level]:
            level, used = level + 1, 0
        self._level[request.request_id], self._used[request.request_id] = level, used

    def ended(self, request: Request, now: float) -> None:
        del self._level[request.request_id], self._used[request.request_id]
