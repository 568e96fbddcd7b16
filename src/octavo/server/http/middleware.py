"""Middleware around every route: request id, API key, one event per response.

Plain ASGI, not Starlette's ``BaseHTTPMiddleware``: that one buffers streams and hides disconnects.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.errors import AuthenticationError
from octavo.observability.events import HttpResponded, Publish
from octavo.server.http.keys import ApiKeys
from octavo.server.http.responses import error_response

_log = logging.getLogger(__name__)
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

# The only routes without a key: probes of orchestrators, which carry none.
OPEN_PATHS = frozenset({"/health", "/ready"})


class HttpMiddleware:
    """Outermost layer: denies by default, stamps ``x-request-id``, publishes route and status of every response.

    Puts ``octavo.tenant`` into the scope. A websocket, which nothing here speaks, is closed.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, publish: Publish) -> None:
        self._app = app
        self._keys = keys
        self._publish = publish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        begin_s = time.monotonic()
        headers = Headers(scope=scope)
        sent_id = headers.get("x-request-id", "")
        request_id = sent_id if _SANE_ID.fullmatch(sent_id) else uuid.uuid4().hex
        status = 499  # until a response begins: the client has disconnected

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._authenticate(scope, headers, receive, stamped)
        except Exception:
            status = 500 if status == 499 else status
            raise
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._publish(HttpResponded(route, status))
            if _log.isEnabledFor(logging.DEBUG):
                facts = {"request_id": request_id, "method": scope["method"], "path": quote(scope["path"])}
                facts |= {"status": status, "seconds": round(time.monotonic() - begin_s, 6)}
                _log.debug("responded", extra={"facts": facts})

    async def _authenticate(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        scope["octavo.tenant"] = ""
        if self._keys.required and scope["path"] not in OPEN_PATHS:
            try:
                scope["octavo.tenant"] = self._keys.tenant(
                    headers.get("authorization", "").encode("latin-1"), headers.get("x-api-key", "").encode("latin-1")
                )
            except AuthenticationError as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
