"""Service received by each tenant: virtual token counters (VTC).

Sheng et al., "Fairness in serving large language models" (OSDI 2024). Service = prompt tokens + ``OUTPUT_WEIGHT`` x output
tokens, divided by the weight of the request's class. A tenant that begins to wait is lifted to the least counter of those
that wait already (or to that of the last one that did): being away earns no credit. A preempted request's prompt is not
charged again: that was not the tenant's wish.
"""

from __future__ import annotations

from octavo.types import Request

OUTPUT_WEIGHT = (
    2.0  # an output token costs about twice a prompt token: the ratio that the paper uses and that API prices show
)


class ServiceCounters:
    """Fed by a policy's own hooks."""

    def __init__(self) -> None:
        self.of: dict[str, float] = {}  # tenant -> service
        self._waiting: dict[str, int] = {}  # tenant -> its waiting requests, never 0
        self._last = 0.0  # counter of the tenant that was the last to leave the queue

    @property
    def least(self) -> float:
        """Of the tenants that wait."""
        return min((self.of[tenant] for tenant in self._waiting), default=self._last)

    def waits(self, tenant: str) -> None:
        """One more of its requests waits."""
        if tenant not in self._waiting:
            self.of[tenant] = max(self.of.get(tenant, 0.0), self.least)
        self._waiting[tenant] = self._waiting.get(tenant, 0) + 1

    def waits_no_longer(self, tenant: str) -> None:
        """One of its requests left the queue."""
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]
            self._last = self.of[tenant]

    def started(self, request: Request) -> None:
        """Charge the prompt."""
        if request.num_preemptions == 0:
            self.of[request.tenant] += request.num_prompt_tokens / request.service_class.weight

    def committed(self, request: Request, num_sampled: int) -> None:
        """Charge the output tokens that this step made."""
        if num_sampled:
            self.of[request.tenant] += OUTPUT_WEIGHT * num_sampled / request.service_class.weight
