"""Which routes are there? The ASGI application over one ``ServerState``."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Path, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from octavo import __version__
from octavo.config import ServerConfig
from octavo.errors import InvalidRequestError, NotFoundError, OctavoError
from octavo.server import answers, requests
from octavo.server.chat import ChatCompletions
from octavo.server.completions import Completions
from octavo.server.gate import Gate
from octavo.server.keys import ApiKeys, load_api_keys
from octavo.server.leave import ClientGoneError
from octavo.server.openapi import describe, install_openapi
from octavo.server.parsing import ClientDisconnect
from octavo.server.probes import Probes
from octavo.server.state import ServerState
from octavo.server.tokens import Tokens
from octavo.server.wire import error_response
from octavo.text.tokenizer import Tokenizer
from octavo.types import EngineClient

_log = logging.getLogger(__name__)

_BODY_ERRORS = (400, 401, 404, 413, 503)
_GENERATION_ERRORS = (*_BODY_ERRORS, 500)


def create_app(
    client: EngineClient, tokenizer: Tokenizer, config: ServerConfig, model_name: str, max_num_running: int = 64
) -> ASGIApp:
    """The application over an engine that is ready already (tests, embedding)."""
    state = ServerState(config, model_name, max_num_running)
    state.attach(client, tokenizer)
    return build_app(state, load_api_keys(config.api_key_file))


def build_app(state: ServerState, keys: ApiKeys) -> ASGIApp:
    """The application over ``state``, whose engine may come later. Everything passes the ``Gate``."""
    return Gate(build_routes(state, keys), keys, state.metrics)


def build_routes(state: ServerState, keys: ApiKeys) -> FastAPI:
    """The routes and their description, without the gate."""
    app = FastAPI(
        title="Octavo",
        version=__version__,
        description="OpenAI's API for large language models, with vLLM's extensions.",
        redirect_slashes=False,
        redoc_url=None,
    )
    _add_generation(app, state)
    _add_probes(app, state)
    app.add_exception_handler(OctavoError, _on_octavo_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_surprise)
    install_openapi(app, keys_required=keys.required)
    return app


def _add_generation(app: FastAPI, state: ServerState) -> None:
    tokens = Tokens(state)
    app.add_api_route(
        "/v1/completions",
        Completions(state).create,
        methods=["POST"],
        response_model=None,
        **describe(
            body=requests.CompletionRequest,
            answer=answers.CompletionAnswer,
            chunk=answers.CompletionAnswer,
            errors=_GENERATION_ERRORS,
        ),
    )
    app.add_api_route(
        "/v1/chat/completions",
        ChatCompletions(state).create,
        methods=["POST"],
        response_model=None,
        **describe(
            body=requests.ChatCompletionRequest,
            answer=answers.ChatAnswer,
            chunk=answers.ChatChunk,
            errors=_GENERATION_ERRORS,
        ),
    )
    for path, endpoint, body, answer in (
        ("/tokenize", tokens.tokenize, requests.TokenizeRequest, answers.TokenizeAnswer),
        ("/detokenize", tokens.detokenize, requests.DetokenizeRequest, answers.DetokenizeAnswer),
    ):
        described = describe(body=body, answer=answer, errors=_BODY_ERRORS)
        app.add_api_route(path, endpoint, methods=["POST"], response_model=None, **described)


def _add_probes(app: FastAPI, state: ServerState) -> None:
    probes = Probes(state)

    async def model(request: Request, model_id: str = Path(description="a name from /v1/models")) -> Response:
        """The model of this name."""
        return await probes.model(request)

    status = describe(answer=answers.StatusAnswer, errors=(503,), error=answers.StatusAnswer)
    for path, endpoint, described in (
        ("/health", probes.health, status),
        ("/ready", probes.ready, status),
        ("/version", probes.version, describe(answer=answers.VersionAnswer, errors=(401,))),
        ("/v1/models", probes.models, describe(answer=answers.ModelList, errors=(401, 503))),
        ("/v1/models/{model_id:path}", model, describe(answer=answers.ModelCard, errors=(401, 404, 503))),
    ):
        app.add_api_route(path, endpoint, methods=["GET"], response_model=None, **described)
    metrics = describe(errors=(401,))
    metrics["responses"][200]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    app.add_api_route("/metrics", probes.metrics, methods=["GET"], response_model=None, **metrics)


async def _on_octavo_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, OctavoError)  # registered for it alone
    if isinstance(error, ClientGoneError):
        return Response(status_code=error.status)
    return error_response(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such route, wrong method) in the one error shape."""
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
    return Response(status_code=ClientGoneError.status)


async def _on_surprise(_: Request, error: Exception) -> Response:
    """A bug of ours. Starlette raises it again after the answer, and uvicorn logs it."""
    return error_response(OctavoError("internal error; the server's log has the details"))
