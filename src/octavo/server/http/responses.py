"""HTTP responses: JSON bodies, server-sent events, one shape for every error."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.errors import AuthenticationError, OctavoError, OverloadedError
from octavo.server.http.disconnect import ClientDisconnectError, DisconnectGuard

_log = logging.getLogger(__name__)

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"


class ErrorBody(msgspec.Struct, kw_only=True, frozen=True):
    """``param`` names the field of the request; ``code`` is for machines."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(msgspec.Struct, kw_only=True, frozen=True):
    """OpenAI's shape of an error."""

    error: ErrorBody


def json_response(body: msgspec.Struct, status: int = 200) -> Response:
    """``body`` encoded by msgspec."""
    return Response(msgspec.json.encode(body), status, media_type=JSON)


def error_body(error: OctavoError) -> ErrorResponse:
    """The error in OpenAI's shape."""
    return ErrorResponse(error=ErrorBody(message=error.message, type=error.type, param=error.param, code=error.code))


def error_response(error: OctavoError) -> Response:
    """``error_body`` with ``Retry-After`` where a retry can help; an empty body for a client that has disconnected."""
    if isinstance(error, ClientDisconnectError):
        return Response(status_code=error.status)
    response = json_response(error_body(error), error.status)
    if isinstance(error, OverloadedError):
        response.headers["retry-after"] = str(math.ceil(error.retry_after_s))
    elif error.status == 503:
        response.headers["retry-after"] = "1"  # an engine is restarted within seconds
    if isinstance(error, AuthenticationError):
        response.headers["www-authenticate"] = "Bearer"
    if error.status == 413:
        response.headers["connection"] = "close"  # the rest of the body is not worth reading
    return response


def internal_error() -> OctavoError:
    """What a client hears of a bug of ours."""
    return OctavoError("internal error; the server's log has the details")


def sse_event(data: msgspec.Struct) -> bytes:
    """One server-sent event. JSON holds no raw line break, so one ``data`` line is enough."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


class EventStream(Response):
    """A streaming response made from ``chunks``; ``registry`` is where its guard lives while it runs.

    The status line waits for the first chunk, so that what fails before it (queue full, no engine) is an ordinary error
    with its own status. What fails later is what ``on_error`` makes of it. A client that disconnects closes ``chunks`` at
    once, which aborts the requests behind it.
    """

    media_type = EVENT_STREAM

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        registry: set[DisconnectGuard],
        on_error: Callable[[OctavoError], bytes],
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._registry = registry
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with DisconnectGuard(receive, self._registry), aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    if not started:
                        started = True
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ClientDisconnectError:
            return
        except Exception as error:
            known = error if isinstance(error, OctavoError) else _logged(error)
            if not started:
                await error_response(known)(scope, receive, send)
                return
            await send({"type": "http.response.body", "body": self._on_error(known), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _logged(error: Exception) -> OctavoError:
    _log.error("a streaming response failed", exc_info=error)
    return internal_error()
