"""How do answers and errors reach the socket? JSON bodies, server-sent events, one shape for every error."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.errors import AuthenticationError, OctavoError, OverloadedError
from octavo.server.answers import ErrorAnswer, ErrorBody
from octavo.server.leave import ClientGoneError, Guard

_log = logging.getLogger(__name__)

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def json_response(answer: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status, media_type=JSON)


def error_answer(error: OctavoError) -> ErrorAnswer:
    return ErrorAnswer(error=ErrorBody(message=error.message, type=error.type, param=error.param, code=error.code))


def error_response(error: OctavoError) -> Response:
    """The OpenAI error shape, with ``Retry-After`` where a retry can help."""
    response = json_response(error_answer(error), error.status)
    if isinstance(error, OverloadedError):
        response.headers["retry-after"] = str(math.ceil(error.retry_after_s))
    elif error.status == 503:
        response.headers["retry-after"] = "1"  # an engine is restarted within seconds
    if isinstance(error, AuthenticationError):
        response.headers["www-authenticate"] = "Bearer"
    if error.status == 413:
        response.headers["connection"] = "close"  # the rest of the body is not worth reading
    return response


def event(answer: msgspec.Struct) -> bytes:
    """One server-sent event. JSON holds no raw line break, so one ``data`` line is enough."""
    return b"data: " + msgspec.json.encode(answer) + b"\n\n"


class EventStream(Response):
    """A streaming answer made from ``chunks``; ``registry`` is where its guard lives while it runs.

    The status line waits for the first chunk, so that what fails before it (queue full, no engine) is an ordinary error
    with its own status. What fails later is an event of the OpenAI error shape, then ``[DONE]``. A client that leaves
    closes ``chunks`` at once, which aborts the requests behind it.
    """

    media_type = EVENT_STREAM

    def __init__(self, chunks: AsyncGenerator[bytes, None], registry: set[Guard]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        try:
            async with Guard(receive, self._registry), aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    if not started:
                        started = True
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ClientGoneError:
            return
        except Exception as error:
            known = error if isinstance(error, OctavoError) else _internal(error)
            if not started:
                await error_response(known)(scope, receive, send)
                return
            await send({"type": "http.response.body", "body": event(error_answer(known)) + DONE, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _internal(error: Exception) -> OctavoError:
    _log.error("a streaming answer failed", exc_info=error)
    return OctavoError("internal error; the server's log has the details")
