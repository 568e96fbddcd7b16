"""OpenAPI 3.1 description of the routes, from the very structs that validate and respond; the page at /docs that shows it."""

from __future__ import annotations

import http
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from octavo import __version__
from octavo.server.http.body import BodySchema
from octavo.server.http.responses import JSON, ErrorResponse

TITLE = "Octavo"
DESCRIPTION = "OpenAI's API for large language models, with vLLM's extensions."
_REF = "#/components/schemas/{name}"
_PATH_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")

# Swagger UI from its public CDN, as the field serves it; a machine without internet still has /openapi.json.
_DOCS_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Octavo - Swagger UI</title>
<link rel="stylesheet" href="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true})</script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A route and what its description says: the body, the response, ``chunk`` for each event of a stream, error statuses.

    The endpoint's docstring is the description's text.
    """

    method: str
    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    summary: str
    body: BodySchema[Any] | None = None
    response: type[msgspec.Struct] | None = None  # None: plain text
    chunk: type[msgspec.Struct] | None = None
    errors: tuple[int, ...] = ()
    error: type[msgspec.Struct] = ErrorResponse

    @property
    def route(self) -> Route:
        """The Starlette route of this operation."""
        return Route(self.path, self.endpoint, methods=[self.method])

    @property
    def structs(self) -> list[type[msgspec.Struct]]:
        """All that the description refers to."""
        body = self.body.kind if self.body is not None else None
        return [kind for kind in (body, self.response, self.chunk, self.error) if kind is not None]


def documented_routes(operations: Sequence[Operation], *, keys_required: bool) -> list[Route]:
    """The operations' routes, and those of their description: /openapi.json and /docs."""
    body = msgspec.json.encode(openapi_document(operations, keys_required=keys_required))

    async def openapi(_: Request) -> Response:
        return Response(body, media_type=JSON)

    async def docs(_: Request) -> Response:
        return HTMLResponse(_DOCS_PAGE)

    return [*(one.route for one in operations), Route("/openapi.json", openapi), Route("/docs", docs)]


def openapi_document(operations: Sequence[Operation], *, keys_required: bool) -> dict[str, Any]:
    """The description as JSON types."""
    kinds = dict.fromkeys(kind for operation in operations for kind in operation.structs)
    _, schemas = msgspec.json.schema_components(list(kinds), ref_template=_REF)
    paths: dict[str, Any] = {}
    for operation in operations:
        if operation.body is not None:
            schemas[operation.body.kind.__name__]["properties"] |= operation.body.untyped.schemas()
        path = _PATH_PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _describe(operation)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": __version__, "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if keys_required:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _describe(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if operation.response is not None:
        content = {JSON: {"schema": _ref(operation.response)}}
    if operation.chunk is not None:
        # A stream has no schema of its own in OpenAPI 3.1; the type of its events is named in words.
        text = f"Server-sent events: {operation.chunk.__name__} objects, then [DONE]"
        content["text/event-stream"] = {"schema": {"type": "string", "description": text}}
    responses: dict[str, Any] = {"200": {"description": "OK", "content": content}}
    for status in operation.errors:
        error = {JSON: {"schema": _ref(operation.error)}}
        responses[str(status)] = {"description": http.HTTPStatus(status).phrase, "content": error}
    path = _PATH_PARAMETER.sub(r"\1", operation.path)
    name = re.sub(r"\W+", "_", f"{operation.method.lower()}{path}").strip("_")
    described: dict[str, Any] = {"summary": operation.summary, "operationId": name, "responses": responses}
    if doc := inspect.getdoc(operation.endpoint):
        described["description"] = doc
    if names := _PATH_PARAMETER.findall(operation.path):
        described["parameters"] = [
            {"name": one, "in": "path", "required": True, "schema": {"type": "string"}} for one in names
        ]
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(operation.body.kind)}}}
    return described


def _ref(kind: type[msgspec.Struct]) -> Mapping[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
