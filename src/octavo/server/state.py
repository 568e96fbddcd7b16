"""What does the server know of itself? Its phase, its engine once there is one, and who has been let in.

One mutable object per server, touched by the event loop alone. Phases: loading -> ready -> draining; ``failed`` when the
engine cannot be had (again).
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from octavo.config import ServerConfig
from octavo.errors import (
    EngineDeadError,
    InvalidRequestError,
    LoadingError,
    NotFoundError,
    OverloadedError,
    ShuttingDownError,
)
from octavo.observability.metrics import MetricsCollector
from octavo.server.drain_rate import DrainRate
from octavo.server.leave import Guard
from octavo.text.tokenizer import Tokenizer
from octavo.types import EngineClient, EngineStats

LOADING_RETRY_S = 2.0  # models load in seconds; a client that asks again soon is served soon


class Phase(enum.StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Backend:
    """A ready engine and the tokenizer of its model."""

    client: EngineClient
    tokenizer: Tokenizer


@dataclass(slots=True)
class Admission:
    """How many requests may be inside at once: those that run and those that wait.

    A request counts from ``enter`` to ``leave``, so that a burst that has not reached the engine yet is seen as well.
    """

    capacity: int
    clock: Callable[[], float] = time.monotonic
    num_inside: int = 0
    drain: DrainRate = field(init=False)

    def __post_init__(self) -> None:
        self.drain = DrainRate(start_s=self.clock())

    def enter(self, count: int, num_pending: int) -> None:
        """Let ``count`` requests in. Raises ``OverloadedError`` while full, ``InvalidRequestError`` if never possible."""
        if count > self.capacity:
            raise InvalidRequestError(f"prompts x n: {count} requests at once, at most {self.capacity}", param="n")
        num_inside = max(self.num_inside, num_pending)
        excess = num_inside + count - self.capacity
        if excess > 0:
            wait_s = self.drain.retry_after_s(excess, self.clock())
            raise OverloadedError(
                f"the queue is full: {num_inside} requests inside, {count} more asked for, at most {self.capacity}; "
                f"try again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )
        self.num_inside += count

    def leave(self) -> None:
        """One request has ended, however."""
        self.num_inside -= 1
        self.drain.record(self.clock())


class ServerState:
    """See the module. ``max_num_running`` is the engine's; with ``config.max_num_waiting`` it bounds the admission."""

    def __init__(self, config: ServerConfig, model_name: str, max_num_running: int) -> None:
        self.config = config
        self.model_name = config.served_model_name or model_name
        self.created = int(time.time())
        self.phase = Phase.LOADING
        self.failure = ""
        self.metrics = MetricsCollector(self._stats)
        self.admission = Admission(max_num_running + config.max_num_waiting)
        self.guards: set[Guard] = set()  # every request whose answer is being made
        self._backend: Backend | None = None

    def attach(self, client: EngineClient, tokenizer: Tokenizer) -> None:
        """The engine is there: answer requests from now on (unless a signal came meanwhile)."""
        self._backend = Backend(client, tokenizer)
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY

    def drain(self) -> None:
        """Take no new requests; those inside go on."""
        self.phase = Phase.DRAINING

    def fail(self, reason: str) -> None:
        """There is no engine and there will be none."""
        self.phase = Phase.FAILED
        self.failure = reason

    def end_all(self, reason: str) -> None:
        """End every request inside with a ``ShuttingDownError``; its engine request is aborted."""
        for guard in tuple(self.guards):
            guard.end(ShuttingDownError(reason, retry_after_s=LOADING_RETRY_S))

    def backend(self, model: str | None) -> Backend:
        """The engine for a request that names ``model``; raises the error the client must hear while there is none."""
        if self.phase is Phase.DRAINING:
            raise ShuttingDownError("the server is shutting down; ask another one", retry_after_s=LOADING_RETRY_S)
        if self.phase is Phase.FAILED:
            raise EngineDeadError(f"the engine is gone: {self.failure}")
        if self._backend is None:
            raise LoadingError(f"the model {self.model_name} is still loading", retry_after_s=LOADING_RETRY_S)
        if model is not None and model != self.model_name:
            raise NotFoundError(f"model: {model!r} is not served here; served: {self.model_name!r}", param="model")
        return self._backend

    def unhealthy_reason(self) -> str | None:
        """None while all is well; a server that loads its model is well."""
        if self.phase is Phase.FAILED:
            return self.failure
        return self._backend.client.unhealthy_reason() if self._backend else None

    def unready_reason(self) -> str | None:
        """None if a request sent now would be taken."""
        if self.phase is not Phase.READY:
            return f"{self.phase}: {self.failure}" if self.failure else str(self.phase)
        return self.unhealthy_reason()

    def _stats(self) -> EngineStats | None:
        return self._backend.client.stats if self._backend else None
