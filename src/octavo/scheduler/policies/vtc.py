"""Virtual token counter: the tenant with the least service first, its requests in order of arrival.

Sheng et al., "Fairness in serving large language models" (OSDI 2024), weighted. Two tenants that both wait never differ
by more than 2 max(longest prompt, OUTPUT_WEIGHT x tokens that run at once) in service (their Theorem 4.4), whoever
sends how much. Not preemptive, as in the paper. ``service.py`` keeps the accounts.
"""

from __future__ import annotations

from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.scheduler.queue import SortedLine
from octavo.scheduler.service import ServiceCounters
from octavo.types import Request


class VirtualTokenCounters(Fcfs):
    """One line of waiting requests a tenant."""

    static = False

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._lines: dict[str, SortedLine] = {}
        self._service = ServiceCounters()

    def add(self, request: Request, now: float) -> None:
        self._service.waits(request.tenant)
        self._lines.setdefault(request.tenant, SortedLine()).add(request, (request.sequence_number,))

    def remove(self, request: Request, now: float) -> None:
        line = self._lines[request.tenant]
        line.remove(request)
        if not line:
            del self._lines[request.tenant]
        self._service.waits_no_longer(request.tenant)

    def first(self, now: float) -> Request | None:
        heads = [head for line in self._lines.values() if (head := line.first()) is not None]
        return min(heads, key=lambda head: self.rank(head, now), default=None)

    def rank(self, request: Request, now: float) -> Rank:
        return (self._service.of[request.tenant], request.sequence_number)

    def started(self, request: Request, now: float) -> None:
        self._service.started(request)

    def committed(self, request: Request, num_tokens: int, num_sampled: int, now: float) -> None:
        self._service.committed(request, num_sampled)
