"""How does the server describe itself? The OpenAPI document, made from the very structs that validate and answer."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from octavo.server import answers, requests
from octavo.server.refusals import HARMLESS, NEUTRAL

_REF = "#/components/schemas/{name}"
_OPEN_REQUESTS = ("CompletionRequest", "ChatCompletionRequest")
_TYPES = (
    requests.CompletionRequest,
    requests.ChatCompletionRequest,
    requests.TokenizeRequest,
    requests.DetokenizeRequest,
    answers.CompletionAnswer,
    answers.ChatAnswer,
    answers.ChatChunk,
    answers.ModelList,
    answers.ModelCard,
    answers.TokenizeAnswer,
    answers.DetokenizeAnswer,
    answers.StatusAnswer,
    answers.VersionAnswer,
    answers.ErrorAnswer,
)


def describe(
    *,
    body: type[msgspec.Struct] | None = None,
    answer: type[msgspec.Struct] | None = None,
    chunk: type[msgspec.Struct] | None = None,
    errors: tuple[int, ...] = (),
    error: type[msgspec.Struct] = answers.ErrorAnswer,
) -> dict[str, Any]:
    """Arguments for ``add_api_route``: what comes in, what goes out, ``chunk`` for each event of a stream."""
    content: dict[str, Any] = {}
    if answer is not None:
        content["application/json"] = {"schema": _ref(answer)}
    if chunk is not None:
        # A stream has no schema of its own in OpenAPI 3.1; the type of its events is named in words.
        text = f"Server-sent events: {chunk.__name__} objects, then [DONE]"
        content["text/event-stream"] = {"schema": {"type": "string", "description": text}}
    responses: dict[int | str, Any] = {200: {"description": "OK", "content": content}}
    for status in errors:
        responses[status] = {
            "description": http.HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": _ref(error)}},
        }
    extra: dict[str, Any] = {}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return {"responses": responses, "openapi_extra": extra}


def install_openapi(app: FastAPI, *, keys_required: bool) -> None:
    """Let ``app`` describe itself with the structs' own schemas."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, keys_required)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI, keys_required: bool) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    for name in _OPEN_REQUESTS:
        _add_untyped(schemas[name]["properties"])
    components = document.setdefault("components", {})
    components["schemas"] = schemas
    if keys_required:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # FastAPI's own validation is not used
    return document


def _add_untyped(properties: dict[str, Any]) -> None:
    for name in sorted(HARMLESS):
        properties[name] = {"description": "Accepted; has no effect on the answer."}
    for name, neutral in sorted(NEUTRAL.items()):
        properties[name] = {"description": "Not honoured yet: only these values pass.", "enum": [None, *neutral]}


def _ref(kind: type[msgspec.Struct]) -> Mapping[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
