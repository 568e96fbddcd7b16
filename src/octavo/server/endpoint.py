"""Endpoint of any API that generates: a body becomes a job, the job's deltas become the response or its stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.config import ServerConfig
from octavo.errors import OctavoError
from octavo.server.generation import ChoiceDelta, Job, Sender, complete_job, run_job
from octavo.server.http.body import BodySchema, read_body
from octavo.server.http.disconnect import DisconnectGuard
from octavo.server.http.responses import EventStream, json_response
from octavo.server.state import ServedModel, ServerState
from octavo.text.response import ResponseDelta

B = TypeVar("B", bound=msgspec.Struct)


class Renderer(Protocol):
    """A job's deltas in the shapes of one API."""

    def response(self, choices: Sequence[ResponseDelta]) -> msgspec.Struct:
        """The whole response; each choice is one delta that has all of it."""
        ...

    def chunk(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Server-sent events for what has just arrived."""
        ...

    def end(self) -> bytes:
        """The last events of a stream."""
        ...

    def error(self, error: OctavoError) -> bytes:
        """The last events of a stream that fails."""
        ...


@dataclass(frozen=True)
class GenerationApi(Generic[B]):
    """What one API adds to an endpoint: its body, a job from it, the rendering of the job. ``stream`` is the body's own."""

    schema: BodySchema[B]
    make_job: Callable[[B, ServedModel, ServerConfig, Sender], Awaitable[Job]]
    renderer: Callable[[Job, B], Renderer]


class GenerationEndpoint(Generic[B]):
    """A POST route. Raises ``OctavoError`` for whatever it refuses."""

    def __init__(self, api: GenerationApi[B], state: ServerState) -> None:
        self._api = api
        self._state = state

    async def post(self, request: Request) -> Response:
        """The whole response, or a stream of server-sent events if the body asks for one."""
        arrival_s = time.monotonic()
        api, state = self._api, self._state
        body: Any = await read_body(request, api.schema, state.config.max_body_bytes)
        model = state.model(body.model)
        job = await api.make_job(body, model, state.config, Sender(request.scope.get("octavo.tenant", ""), arrival_s))
        renderer = api.renderer(job, body)
        if body.stream:
            return EventStream(_stream(job, state, renderer), state.guards, renderer.error)
        async with DisconnectGuard(request.receive, state.guards):
            return json_response(renderer.response(await complete_job(job, state)))


async def _stream(job: Job, state: ServerState, renderer: Renderer) -> AsyncGenerator[bytes, None]:
    async with aclosing(run_job(job, state)) as batches:
        async for deltas in batches:
            yield renderer.chunk(deltas)
    yield renderer.end()
