"""Events that observability subscribes to: what the server and its engine publish, one small type each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from octavo.types import EngineStats, RequestTimings


class StepFinished(NamedTuple):
    """The engine has finished a step."""

    stats: EngineStats


class EngineSnapshot(NamedTuple):
    """The newest statistics of the engine, outside a step."""

    stats: EngineStats


class EngineRestarted(NamedTuple):
    """The engine is down and another is about to be started."""


class FirstTokens(NamedTuple):
    """The first tokens of a request have reached the server."""

    num_tokens: int
    ttft_s: float  # since its arrival


class NextTokens(NamedTuple):
    """Further tokens of a request have reached the server."""

    num_tokens: int
    itl_s: float  # between two of them


class RequestFinished(NamedTuple):
    """A request is over. ``reason`` is its finish reason, "error", or "abort" if its client disconnected."""

    reason: str
    num_prompt_tokens: int
    num_output_tokens: int
    timings: RequestTimings | None  # None: it got no whole response


class HttpResponded(NamedTuple):
    """A response has been sent; status 499 if the client disconnected before it began."""

    route: str
    status: int


Event = StepFinished | EngineSnapshot | EngineRestarted | FirstTokens | NextTokens | RequestFinished | HttpResponded
Publish = Callable[[Event], None]
