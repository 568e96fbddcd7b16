"""Accounting of a simulated run: SLO attainment by service class, fairness gap and Jain's index between tenants."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from octavo.scheduler.service import OUTPUT_WEIGHT
from octavo.simulator.traffic import Arrival
from octavo.types import Plan, RequestTimings, ServiceClass


@dataclass(slots=True)
class FairnessMeter:
    """Service of tenants while they wait for more.

    ``gap``: the largest change of the difference in service between two tenants over a time in which both had requests
    waiting: what the theorem of VTC bounds. ``jain``: Jain's index over each tenant's service per second while it and
    another one waited; 1 if nobody ever had to share.
    """

    gap: float = 0.0
    _waiting: dict[str, str] = field(default_factory=dict)  # request -> tenant
    _tenants: dict[str, str] = field(default_factory=dict)  # request -> tenant
    _again: set[str] = field(default_factory=set)  # requests that were preempted
    _num_waiting: dict[str, int] = field(default_factory=dict)
    _service: dict[str, float] = field(default_factory=dict)
    _shared_s: dict[str, float] = field(default_factory=dict)
    _shared_service: dict[str, float] = field(default_factory=dict)
    _ranges: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def came(self, request_id: str, tenant: str) -> None:
        """A request was submitted and waits for its first service."""
        self._waiting[request_id] = self._tenants[request_id] = tenant
        self._num_waiting[tenant] = self._num_waiting.get(tenant, 0) + 1
        self._service.setdefault(tenant, 0.0)

    def stepped(self, plan: Plan, seconds: float) -> None:
        """Account for one step; called before its result is."""
        backlogged = sorted(tenant for tenant, count in self._num_waiting.items() if count)
        for share in plan.requests:
            if (tenant := self._waiting.pop(share.request_id, None)) is not None:
                self._num_waiting[tenant] -= 1
        if len(backlogged) < 2:  # nobody to be compared with
            self._ranges.clear()
            return
        before, service = dict(self._service), self._service
        for request_id, _, num_tokens, samples, _, _, new in plan.requests:
            if new is not None and len(new.token_ids) > new.num_prompt_tokens:
                self._again.add(request_id)
            is_prompt = num_tokens > 1 and request_id not in self._again  # what is computed again is no service
            service[self._tenants[request_id]] += (num_tokens if is_prompt else 0) + (OUTPUT_WEIGHT if samples else 0.0)
        for tenant in backlogged:
            self._shared_s[tenant] = self._shared_s.get(tenant, 0.0) + seconds
            gained = service[tenant] - before[tenant]
            self._shared_service[tenant] = self._shared_service.get(tenant, 0.0) + gained
        ranges = {}
        for pair in itertools.combinations(backlogged, 2):
            was, now = before[pair[0]] - before[pair[1]], service[pair[0]] - service[pair[1]]
            low, high = self._ranges.get(pair, (was, was))
            ranges[pair] = (min(low, now), max(high, now))
            self.gap = max(self.gap, ranges[pair][1] - ranges[pair][0])
        self._ranges = ranges

    @property
    def jain(self) -> float:
        """Jain's fairness index, see the class; 1 is even."""
        rates = [self._shared_service[tenant] / s for tenant, s in self._shared_s.items() if s > 0]
        squares = sum(rate * rate for rate in rates)
        return sum(rates) ** 2 / (len(rates) * squares) if len(rates) > 1 and squares > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """One request of a replay, from its arrival to its end."""

    arrival: Arrival
    timings: RequestTimings
    service_class: ServiceClass

    @property
    def slo_attained(self) -> bool:
        """TTFT, TPOT and first service within the class's ``ttft_s``, ``tpot_s`` and ``max_wait_s``."""
        objectives = (
            (self.timings.ttft_s, self.service_class.ttft_s),
            (self.timings.tpot_s, self.service_class.tpot_s),
            (self.timings.queue_s, self.service_class.max_wait_s),
        )
        return all(limit is None or (value or 0.0) <= limit for value, limit in objectives)

    @property
    def waited_too_long(self) -> bool:
        """First served later than ``max_wait_s`` after its arrival."""
        limit = self.service_class.max_wait_s
        return limit is not None and (self.timings.queue_s or 0.0) > limit


def quantile(values: Sequence[float], q: float) -> float | None:
    """The smallest value that is not below a share ``q`` of them; None for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)] if ordered else None


def by_class(ended: Sequence[Ended]) -> Mapping[str, dict[str, float | int | None]]:
    """``classes.<name>`` of the report."""
    found: dict[str, dict[str, float | int | None]] = {}
    for name in sorted({one.service_class.name for one in ended}):
        own = [one for one in ended if one.service_class.name == name]
        ttft = [one.timings.ttft_s for one in own if one.timings.ttft_s is not None]
        tpot = [one.timings.tpot_s for one in own if one.timings.tpot_s is not None]
        found[name] = {
            "ttft_p50_s": quantile(ttft, 0.5),
            "ttft_p99_s": quantile(ttft, 0.99),
            "tpot_p99_s": quantile(tpot, 0.99),
            "max_wait_s": max((one.timings.queue_s or 0.0 for one in own), default=None),
            "violations": sum(not one.slo_attained for one in own),
            "requests": len(own),
        }
    return found
