"""Probes: GET /health, /ready, /version and /metrics, for orchestrators and dashboards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo import __version__
from octavo.observability.events import EngineSnapshot
from octavo.server.http.openapi import Operation
from octavo.server.http.responses import json_response
from octavo.server.state import ServerState


class StatusResponse(msgspec.Struct, kw_only=True, frozen=True):
    status: str
    reason: str | None = None


class VersionResponse(msgspec.Struct, kw_only=True, frozen=True):
    version: str


Endpoint = Callable[[Request], Awaitable[Response]]


class Probes:
    """The routes; ``operations`` has them all."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    @property
    def operations(self) -> list[Operation]:
        """The four routes and their descriptions."""

        def status(path: str, endpoint: Endpoint, summary: str) -> Operation:
            return Operation(
                method="GET",
                path=path,
                endpoint=endpoint,
                summary=summary,
                response=StatusResponse,
                errors=(503,),
                error=StatusResponse,
            )

        version = Operation(
            method="GET",
            path="/version",
            endpoint=self.version,
            summary="Version",
            response=VersionResponse,
            errors=(401,),
        )
        metrics = Operation(method="GET", path="/metrics", endpoint=self.metrics, summary="Metrics", errors=(401,))
        return [
            status("/health", self.health, "Health"),
            status("/ready", self.ready, "Readiness"),
            version,
            metrics,
        ]

    async def health(self, _: Request) -> Response:
        """Alive: 200 also while loading and draining; 503 with the reason when the engine is hung or gone."""
        reason = self._state.unhealthy_reason()
        return _status("ok" if reason is None else "unhealthy", reason)

    async def ready(self, _: Request) -> Response:
        """200 only if a request sent now would be taken."""
        reason = self._state.unready_reason()
        return _status("ready" if reason is None else "not ready", reason)

    async def version(self, _: Request) -> Response:
        """Of Octavo."""
        return json_response(VersionResponse(version=__version__))

    async def metrics(self, request: Request) -> Response:
        """In Prometheus' format, or OpenMetrics if accepted."""
        if (model := self._state.loaded) is not None:
            self._state.publish(EngineSnapshot(model.client.stats))
        body, content_type = self._state.metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})


def _status(status: str, reason: str | None) -> Response:
    response = json_response(StatusResponse(status=status, reason=reason), 200 if reason is None else 503)
    response.headers["cache-control"] = "no-store"
    if reason is not None:
        response.headers["retry-after"] = "1"
    return response
