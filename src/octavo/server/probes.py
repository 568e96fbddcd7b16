"""What do orchestrators, dashboards and client libraries ask? /health, /ready, /version, /metrics and /v1/models."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from octavo import __version__
from octavo.errors import NotFoundError
from octavo.server.answers import ModelCard, ModelList, StatusAnswer, VersionAnswer
from octavo.server.state import ServerState
from octavo.server.wire import json_response


class Probes:
    """The GET routes."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def health(self, _: Request) -> Response:
        """Alive: 200 also while loading and draining; 503 with the reason when the engine is hung or gone."""
        reason = self._state.unhealthy_reason()
        return _status("ok" if reason is None else "unhealthy", reason)

    async def ready(self, _: Request) -> Response:
        """200 only if a request sent now would be taken."""
        reason = self._state.unready_reason()
        return _status("ready" if reason is None else "not ready", reason)

    async def version(self, _: Request) -> Response:
        return json_response(VersionAnswer(version=__version__))

    async def metrics(self, request: Request) -> Response:
        body, content_type = self._state.metrics.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def models(self, _: Request) -> Response:
        return json_response(ModelList(data=[self._card()]))

    async def model(self, request: Request) -> Response:
        name = request.path_params["model_id"]
        if name != self._state.model_name:
            raise NotFoundError(
                f"model: {name!r} is not served here; served: {self._state.model_name!r}", param="model"
            )
        return json_response(self._card())

    def _card(self) -> ModelCard:
        info = self._state.backend(None).client.info
        return ModelCard(
            id=self._state.model_name,
            created=self._state.created,
            max_model_len=info.max_model_len,
            dtype=info.dtype,
            weight_bytes=info.weight_bytes,
        )


def _status(status: str, reason: str | None) -> Response:
    response = json_response(StatusAnswer(status=status, reason=reason), 200 if reason is None else 503)
    response.headers["cache-control"] = "no-store"
    if reason is not None:
        response.headers["retry-after"] = "1"
    return response
