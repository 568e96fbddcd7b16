"""Deficit longest-prefix match: longest cached prefix first, among tenants with credit left.

Cao et al., "Locality-aware fair scheduling in LLM serving" (arXiv 2501.14312). Each tenant has a deficit counter;
service is taken from it; who is at zero or below is passed over; when all that wait are, each gets a quantum.
Deviation: the match is looked up for the ``LOOKED_AT`` longest-waiting requests of each tenant only, because a look-up
costs a hash a block.
"""

from __future__ import annotations

from itertools import islice

from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policy import Rank
from octavo.scheduler.queue import SortedLine
from octavo.scheduler.service import OUTPUT_WEIGHT
from octavo.types import Request

QUANTUM_TOKENS = 4096.0
LOOKED_AT = 16


class DeficitLongestPrefixMatch(Fcfs):
    """One line of waiting requests a tenant; the credit of a tenant that stays away does not grow."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._lines: dict[str, SortedLine] = {}
        self._credit: dict[str, float] = {}
        self._chosen: tuple[float, Request] | None = None  # for which moment, so that one plan looks once

    def add(self, request: Request, now: float) -> None:
        self._credit.setdefault(request.tenant, QUANTUM_TOKENS)
        self._lines.setdefault(request.tenant, SortedLine()).add(request, (request.sequence_number,))
        self._chosen = None

    def remove(self, request: Request, now: float) -> None:
        line = self._lines[request.tenant]
        line.remove(request)
        if not line:
            del self._lines[request.tenant]
        self._chosen = None

    def first(self, now: float) -> Request | None:
        if not self._lines:
            return None
        if self._chosen is None or self._chosen[0] != now:
            self._chosen = (now, self._choose())
        return self._chosen[1]

    def _choose(self) -> Request:
        while not any(self._credit[tenant] > 0 for tenant in self._lines):
            for tenant in self._lines:
                self._credit[tenant] += QUANTUM_TOKENS
        candidates = [
            request
            for tenant, line in self._lines.items()
            if self._credit[tenant] > 0
            for request in islice(line, LOOKED_AT)
        ]
        return min(candidates, key=lambda one: (-self.forecast.cached_tokens(one), one.sequence_number))

    def rank(self, request: Request, now: float) -> Rank:
        return (request.sequence_number,)

    def started(self, request: Request, now: float) -> None:
        if request.num_preemptions == 0:
            extra = request.num_prompt_tokens - request.num_computed_tokens
            self._credit[request.tenant] -= extra / request.service_class.weight

    def committed(self, request: Request, num_tokens: int, num_sampled: int, now: float) -> None:
        self._credit[request.tenant] -= OUTPUT_WEIGHT * num_sampled / request.service_class.weight
