"""GET /v1/models and /v1/models/{model}."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import NotFoundError
from octavo.server.http.openapi import Operation
from octavo.server.http.responses import json_response
from octavo.server.state import ServerState


class ModelCard(msgspec.Struct, kw_only=True, frozen=True):
    """The served model, in OpenAI's shape; ``max_model_len`` and what follows are extensions."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "octavo"
    max_model_len: int
    dtype: str = ""  # of the matrix products
    weight_bytes: int = 0  # as they lie in memory; 0: a model without weights


class ModelList(msgspec.Struct, kw_only=True, frozen=True):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Models:
    """The two routes; ``operations`` has both."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    @property
    def operations(self) -> list[Operation]:
        """The two routes and their descriptions."""
        return [
            Operation(
                method="GET",
                path="/v1/models",
                endpoint=self.models,
                summary="Models",
                response=ModelList,
                errors=(401, 503),
            ),
            Operation(
                method="GET",
                path="/v1/models/{model_id:path}",
                endpoint=self.model,
                summary="Model",
                response=ModelCard,
                errors=(401, 404, 503),
            ),
        ]

    async def models(self, _: Request) -> Response:
        """The served model, in a list."""
        return json_response(ModelList(data=[self._card()]))

    async def model(self, request: Request) -> Response:
        """The model of this name, from /v1/models."""
        name = request.path_params["model_id"]
        if name != self._state.model_name:
            raise NotFoundError(
                f"model: {name!r} is not served here; served: {self._state.model_name!r}", param="model"
            )
        return json_response(self._card())

    def _card(self) -> ModelCard:
        info = self._state.model(None).client.info
        return ModelCard(
            id=self._state.model_name,
            created=self._state.created,
            max_model_len=info.max_model_len,
            dtype=info.dtype,
            weight_bytes=info.weight_bytes,
        )
