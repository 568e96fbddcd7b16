"""Admission control: tenants' quotas and rates, refusal or degradation of requests whose SLO cannot be attained.

An SLO that the machine's own arithmetic says will be violated is best refused at once, while the client can still go
elsewhere: with 429 and ``Retry-After``, or by a weaker class, as the class says (``when_full``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from octavo.errors import SloUnattainableError, TooManyRequestsError
from octavo.scheduler.deadlines import first_token_due
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.step_time import StepLoad
from octavo.types import Request, ServiceClass

BURST_S = 10.0  # a tenant that was quiet may send this much of its rate at once
MAX_RETRY_AFTER_S = 120.0


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What one tenant may use; 0: no limit. ``kv_share``: of the KV cache, by prompts and forecast outputs."""

    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0  # prompt tokens and max_tokens
    max_requests: int = 0  # waiting and running
    kv_share: float = 1.0


@dataclass(slots=True)
class _Bucket:
    """Tokens that trickle in at ``rate`` up to ``BURST_S`` of it (at least one request's worth passes when it is full)."""

    rate: float
    level: float
    at_s: float

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` is there; 0 if it is."""
        most = max(1.0, self.rate * BURST_S)
        self.level = min(most, self.level + (now - self.at_s) * self.rate)
        self.at_s = now
        return max(0.0, (min(amount, most) - self.level) / self.rate)


class Admission:
    """Counts what every tenant has inside; ``check`` before ``entered``, ``ended`` for each that entered."""

    def __init__(
        self, forecast: Forecast, limits: TenantLimits, classes: tuple[ServiceClass, ...], *, kv_tokens: int
    ) -> None:
        self._forecast = forecast
        self._limits = limits
        self._classes = classes
        self._kv_tokens = kv_tokens
        self._inside: dict[str, dict[str, int]] = {}  # tenant -> request -> tokens that it may come to hold
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def check(self, request: Request, ahead: Iterable[Request], max_step_tokens: int, now: float) -> None:
        """Raises ``TooManyRequestsError`` or ``SloUnattainableError``; may put the request into a weaker class.

        ``ahead``: the requests inside, of which those that are due earlier will be served before this one.
        """
        self._check_quotas(request)
        rest = list(ahead) if request.service_class.when_full != "admit" else []
        late_s = self._late_s(request, rest, max_step_tokens, now) if rest else 0.0
        if late_s > 0.0 and request.service_class.when_full == "refuse":
            raise SloUnattainableError(
                f"class {request.service_class.name!r}: the first token is due within {request.service_class.ttft_s:g} s, "
                f"but it would come {late_s:.1f} s later; try again in {_whole(late_s):.0f} s or ask for a weaker class",
                retry_after_s=_whole(late_s),
            )
        while late_s > 0.0 and request.service_class.when_full == "degrade":
            request.service_class = self._weaker(request.service_class)
            late_s = self._late_s(request, rest, max_step_tokens, now)
        self._check_rates(request, now)

    def entered(self, request: Request) -> None:
        num_tokens = request.num_prompt_tokens + self._forecast.lengths.predict(request)
        self._inside.setdefault(request.tenant, {})[request.request_id] = num_tokens

    def ended(self, request: Request) -> None:
        own = self._inside[request.tenant]
        del own[request.request_id]
        if not own:
            del self._inside[request.tenant]

    def _check_quotas(self, request: Request) -> None:
        own, limits = self._inside.get(request.tenant, {}), self._limits
        if limits.max_requests and len(own) >= limits.max_requests:
            raise TooManyRequestsError(
                f"this key has {len(own)} requests inside, at most {limits.max_requests}; wait for one to end"
            )
        if limits.kv_share < 1.0 and own:
            allowed = limits.kv_share * self._kv_tokens
            wanted = sum(own.values()) + request.num_prompt_tokens + self._forecast.lengths.predict(request)
            if wanted > allowed:
                raise TooManyRequestsError(
                    f"this key's requests would hold {wanted} tokens of the KV cache, at most {allowed:.0f} "
                    f"({limits.kv_share:g} of it); wait for one to end"
                )

    def _check_rates(self, request: Request, now: float) -> None:
        limits = self._limits
        num_tokens = float(request.num_prompt_tokens + request.max_tokens)
        wanted = (("requests", limits.requests_per_s, 1.0), ("tokens", limits.tokens_per_s, num_tokens))
        limited = [
            (self._bucket(request.tenant, what, rate, now), what, amount) for what, rate, amount in wanted if rate
        ]
        for bucket, what, amount in limited:
            wait_s = bucket.wait_s(amount, now)
            if wait_s > 0.0:
                raise TooManyRequestsError(
                    f"this key may send {bucket.rate:g} {what} a second; try again in {_whole(wait_s):.0f} s",
                    retry_after_s=_whole(wait_s),
                )
        for bucket, _, amount in limited:
            bucket.level -= amount

    def _bucket(self, tenant: str, what: str, rate: float, now: float) -> _Bucket:
        key = (tenant, what)
        if key not in self._buckets:
            self._buckets[key] = _Bucket(rate, max(1.0, rate * BURST_S), now)
        return self._buckets[key]

    def _late_s(self, request: Request, ahead: list[Request], max_step_tokens: int, now: float) -> float:
        """How much too late its first token is forecast to come; 0 if in time, without an SLO, or nothing is known yet.

        Prefill goes at the speed of full steps beside the requests that decode now; earlier due ones that
        are not late yet go first, as the deadline policies do.
        """
        due, step_time = first_token_due(request), self._forecast.step_time
        if math.isinf(due) or not step_time.ready:
            return 0.0
        num_decodes, context, tokens = 0, 0, len(request.token_ids)
        for other in ahead:
            left = len(other.token_ids) - other.num_computed_tokens
            if left == 1:
                num_decodes, context = num_decodes + 1, context + other.num_computed_tokens
            elif now < first_token_due(other) <= due:
                tokens += left
        chunk = max(1, max_step_tokens - num_decodes)
        full_step_s = step_time.seconds(StepLoad(chunk, num_decodes, context, 0.5 * chunk * chunk))
        return max(0.0, now + tokens / chunk * full_step_s - due)

    def _weaker(self, present: ServiceClass) -> ServiceClass:
        """The next class in the file; behind the last, the same one without its SLOs."""
        names = [one.name for one in self._classes]
        at = names.index(present.name) + 1 if present.name in names else len(names)
        if at < len(names):
            return self._classes[at]
        return ServiceClass(name=present.name, max_wait_s=present.max_wait_s, weight=present.weight)


def _whole(seconds: float) -> float:
    return float(math.ceil(min(max(seconds, 1.0), MAX_RETRY_AFTER_S)))
