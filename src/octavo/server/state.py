"""State of the server: its phase, its model once there is one, the requests in flight, where events go.

One mutable object per server, touched by the event loop alone. Phases: loading -> ready -> draining; ``failed`` when the
engine cannot be had (again).
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass

from octavo.config import ServerConfig
from octavo.errors import EngineDeadError, LoadingError, NotFoundError, ShuttingDownError
from octavo.observability.events import Publish
from octavo.observability.metrics import MetricsCollector
from octavo.server.concurrency import ConcurrencyLimiter
from octavo.server.http.disconnect import DisconnectGuard
from octavo.text.tokenizer import Tokenizer
from octavo.types import EngineClient

LOADING_RETRY_S = 2.0  # models load in seconds; a client that asks again soon is served soon


class Phase(enum.StrEnum):
    """loading -> ready -> draining; failed from any of them."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A ready engine, the name that its model is served by, and its tokenizer."""

    name: str
    client: EngineClient
    tokenizer: Tokenizer


class ServerState:
    """See the module. ``max_num_running`` is the engine's; with ``config.max_num_waiting`` it bounds what is in flight."""

    def __init__(self, config: ServerConfig, model_name: str, max_num_running: int) -> None:
        self.config = config
        self.model_name = config.served_model_name or model_name
        self.created = int(time.time())
        self.phase = Phase.LOADING
        self.failure = ""
        self.metrics = MetricsCollector()
        self.publish: Publish = self.metrics.observe
        self.limiter = ConcurrencyLimiter(max_num_running + config.max_num_waiting)
        self.guards: set[DisconnectGuard] = set()  # of every request whose response is being made
        self._model: ServedModel | None = None

    def attach(self, client: EngineClient, tokenizer: Tokenizer) -> None:
        """The engine is there: serve requests from now on (unless a signal came meanwhile)."""
        self._model = ServedModel(self.model_name, client, tokenizer)
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY

    def drain(self) -> None:
        """Take no new requests; those in flight go on."""
        self.phase = Phase.DRAINING

    def fail(self, reason: str) -> None:
        """There is no engine and there will be none."""
        self.phase = Phase.FAILED
        self.failure = reason

    def end_all(self, reason: str) -> None:
        """End every request in flight with a ``ShuttingDownError``; its engine request is aborted."""
        for guard in tuple(self.guards):
            guard.end(ShuttingDownError(reason, retry_after_s=LOADING_RETRY_S))

    def model(self, name: str | None) -> ServedModel:
        """The model for a request that asks for ``name``; raises the error the client must hear while there is none."""
        if self.phase is Phase.DRAINING:
            raise ShuttingDownError("the server is shutting down; ask another one", retry_after_s=LOADING_RETRY_S)
        if self.phase is Phase.FAILED:
            raise EngineDeadError(f"the engine is gone: {self.failure}")
        if self._model is None:
            raise LoadingError(f"the model {self.model_name} is still loading", retry_after_s=LOADING_RETRY_S)
        if name is not None and name != self.model_name:
            raise NotFoundError(f"model: {name!r} is not served here; served: {self.model_name!r}", param="model")
        return self._model

    @property
    def loaded(self) -> ServedModel | None:
        """The model, also while draining; None before it is there."""
        return self._model

    def unhealthy_reason(self) -> str | None:
        """None while all is well; a server that loads its model is well."""
        if self.phase is Phase.FAILED:
            return self.failure
        return self._model.client.unhealthy_reason() if self._model else None

    def unready_reason(self) -> str | None:
        """None if a request sent now would be taken."""
        if self.phase is not Phase.READY:
            return f"{self.phase}: {self.failure}" if self.failure else str(self.phase)
        return self.unhealthy_reason()
