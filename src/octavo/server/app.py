"""The ASGI application: every route over one ``ServerState``, the middleware around them, errors as responses."""

from __future__ import annotations

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from octavo.config import ServerConfig
from octavo.errors import InvalidRequestError, NotFoundError, OctavoError
from octavo.server.http.disconnect import ClientDisconnectError
from octavo.server.http.keys import ApiKeys, load_api_keys
from octavo.server.http.middleware import HttpMiddleware
from octavo.server.http.openapi import Operation, documented_routes
from octavo.server.http.responses import error_response, internal_error
from octavo.server.openai.generation_routes import generation_operations
from octavo.server.openai.models import Models
from octavo.server.openai.tokenize import Tokenization
from octavo.server.probes import Probes
from octavo.server.state import ServerState
from octavo.text.tokenizer import Tokenizer
from octavo.types import EngineClient


def create_app(
    client: EngineClient, tokenizer: Tokenizer, config: ServerConfig, model_name: str, max_num_running: int = 64
) -> ASGIApp:
    """The application over an engine that is ready already (tests, embedding)."""
    state = ServerState(config, model_name, max_num_running)
    state.attach(client, tokenizer)
    return build_app(state, load_api_keys(config.api_key_file))


def build_app(state: ServerState, keys: ApiKeys) -> ASGIApp:
    """The application over ``state``, whose engine may come later. Everything passes the ``HttpMiddleware``."""
    app = Starlette(
        routes=documented_routes(operations(state), keys_required=keys.required),
        exception_handlers={
            OctavoError: _on_octavo_error,
            HTTPException: _on_http_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_unexpected_error,
        },
    )
    app.router.redirect_slashes = False
    return HttpMiddleware(app, keys, state.publish)


def operations(state: ServerState) -> list[Operation]:
    """Every route that the API's description has."""
    return [
        *generation_operations(state),
        *Tokenization(state).operations,
        *Models(state).operations,
        *Probes(state).operations,
    ]


async def _on_octavo_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, OctavoError)  # registered for it alone
    return error_response(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors (no such route, wrong method) in the one error shape."""
    assert isinstance(error, HTTPException)  # registered for it alone
    what = f"{request.method} {request.url.path[:256]}"
    if error.status_code == HTTPStatus.NOT_FOUND:
        known: OctavoError = NotFoundError(f"{what}: no such route")
    else:
        known = InvalidRequestError(f"{what}: {error.detail}")
        known.status = error.status_code
    response = error_response(known)
    response.headers.update(error.headers or {})
    return response


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=ClientDisconnectError.status)


async def _on_unexpected_error(_: Request, __: Exception) -> Response:
    """A bug of ours. Starlette raises it again after the response, and uvicorn logs it."""
    return error_response(internal_error())
