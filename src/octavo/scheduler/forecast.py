"""Forecasts for policies: step time, output length, prefix-cache hits.

One object per scheduler, which feeds it; policies only ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from octavo.scheduler.lengths import LengthForecast, RecentQuantile
from octavo.scheduler.step_time import StepTimeForecast
from octavo.types import Request, ServiceClass


def _none_cached(request: Request) -> int:
    return 0


@dataclass(slots=True)
class Forecast:
    """See the module. ``classes``: the server's, which may tighten a step before such a request comes."""

    step_time: StepTimeForecast = field(default_factory=StepTimeForecast)
    lengths: LengthForecast = field(default_factory=RecentQuantile)
    classes: tuple[ServiceClass, ...] = ()
    cached_tokens: Callable[[Request], int] = _none_cached  # prompt tokens that the prefix cache would serve now
    kv_tokens: int = 0  # room of the KV cache

    def remaining_output(self, request: Request) -> int:
        """Output tokens that are still to come; at least one."""
        return max(1, self.lengths.predict(request) - request.num_output_tokens)
