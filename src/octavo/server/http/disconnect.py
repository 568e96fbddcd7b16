"""Cancellation of a response when its client disconnects or the server shuts down.

Works as ``asyncio.timeout`` does: it cancels the task inside its body and turns that cancellation, and no other, into an
error of its own.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from octavo.errors import OctavoError


class ClientDisconnectError(OctavoError):
    """The client closed the connection; nobody will read a response."""

    status = 499
    code = "client_closed_request"


class DisconnectGuard:
    """``async with DisconnectGuard(receive, registry):`` -- the body is cancelled when ``receive`` reports a disconnect or
    ``end`` is called; the ``with`` then raises ``ClientDisconnectError`` or what ``end`` was given.

    The request's body must have been read: what is left to receive is the disconnect. The guard is in ``registry`` while
    its body runs.
    """

    def __init__(self, receive: Receive, registry: set[DisconnectGuard]) -> None:
        self._receive = receive
        self._registry = registry
        self._error: OctavoError | None = None
        self._task: asyncio.Task[object] | None = None
        self._num_cancels = 0
        self._watch: asyncio.Task[None] | None = None

    def end(self, error: OctavoError) -> None:
        """Cancel the body; the guard raises ``error``. The first call counts."""
        if self._error is None and self._task is not None:
            self._error = error
            self._task.cancel()

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None  # a coroutine always runs in a task here
        self._num_cancels = self._task.cancelling()
        self._watch = asyncio.create_task(self._watch_client())
        self._registry.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._registry.discard(self)
        task, self._task = self._task, None
        assert self._watch is not None and task is not None
        self._watch.cancel()
        if self._error is not None and task.uncancel() <= self._num_cancels and kind is asyncio.CancelledError:
            raise self._error from None

    async def _watch_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.end(ClientDisconnectError("the client closed the connection"))
