"""uvicorn's HTTP/1.1 protocol with bounds on the request head: its bytes, its headers, the time until it is complete."""

from __future__ import annotations

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from octavo.errors import InvalidRequestError

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 128
HEAD_TIMEOUT_S = 30.0


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a head (request line and headers) beyond ``MAX_HEAD_BYTES`` or ``MAX_HEADERS`` with uvicorn's 400, and
    closes a fresh connection that has sent no complete head within ``HEAD_TIMEOUT_S``. What lies between the requests of a
    kept connection is uvicorn's ``timeout_keep_alive``.
    """

    _head_bytes = 0
    _head_timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise InvalidRequestError(f"more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        # An exception in a callback of the parser becomes its own error, which uvicorn answers with 400 and a close.
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise InvalidRequestError(f"request head larger than {MAX_HEAD_BYTES} bytes")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
