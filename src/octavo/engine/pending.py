"""Pending requests on the server's side: one event queue each, exactly one terminal event, abort on disconnect, drain.

Lives on the server's event loop, on this side of every kind of engine: what the engine says comes in through ``handle``,
what one request waits for goes out through ``stream``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable

from octavo.engine.messages import Refused, Report, restore
from octavo.errors import InvalidRequestError, OctavoError
from octavo.types import EngineStats, FinishReason, TokenEvent

Mailbox = asyncio.Queue[TokenEvent | OctavoError]


class PendingRequests:
    """From ``stream``'s start to the engine's last word, one entry per request.

    A client that leaves early takes its mailbox away, but the entry stays until the engine has confirmed the end: late
    events of an aborted request cannot reach a new one of the same id, and an engine that owes an answer counts as busy.
    """

    def __init__(self) -> None:
        self._mailboxes: dict[str, Mailbox | None] = {}  # None: the client has left, the engine has not answered yet
        self._none_left = asyncio.Event()
        self._none_left.set()
        self.stats = EngineStats()

    def __len__(self) -> int:
        return len(self._mailboxes)

    async def stream(
        self, request_id: str, submit: Callable[[], None], abort: Callable[[str], None]
    ) -> AsyncGenerator[TokenEvent, None]:
        """Call ``submit``, then yield the request's events up to its terminal one; raises what it was refused with.

        ``abort`` is called once if the reader leaves before the end.
        """
        mailbox = self._open(request_id)
        try:
            submit()
        except BaseException:
            self._remove(request_id)
            raise
        try:
            while True:
                event = await mailbox.get()
                if isinstance(event, OctavoError):
                    raise event
                yield event
                if event.finish_reason is not None:
                    return
        finally:
            if self._mailboxes.get(request_id) is mailbox:
                self._mailboxes[request_id] = None
                abort(request_id)

    def handle(self, message: Report | Refused) -> None:
        """What the engine says about requests. Words about unknown ids are late ones and mean nothing."""
        match message:
            case Report(events, stats):
                self.stats = stats
                for event in events:
                    self._deliver(event)
            case Refused(request_id=request_id):
                self._put(request_id, restore(message))
                self._remove(request_id)

    def abort_all(self, abort: Callable[[str], None]) -> None:
        """End everybody's wait with ``FinishReason.ABORT``; ``abort`` is called once for each that was still heard."""
        waiting = [request_id for request_id, mailbox in self._mailboxes.items() if mailbox is not None]
        for event in _ends(waiting, FinishReason.ABORT):
            self._put(event.request_id, event)
            self._mailboxes[event.request_id] = None
            abort(event.request_id)

    def fail_all(self, message: str) -> None:
        """The engine is gone: one terminal error for each request, and nothing is pending any more."""
        for event in _ends(list(self._mailboxes), FinishReason.ERROR, message):
            self._deliver(event)

    async def drain(self, grace_s: float, abort: Callable[[str], None]) -> None:
        """Give the pending ones ``grace_s`` seconds, then ``abort_all``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_left.wait(), grace_s)
        self.abort_all(abort)

    def _open(self, request_id: str) -> Mailbox:
        """Raises ``InvalidRequestError`` if the id is in use."""
        if request_id in self._mailboxes:
            raise InvalidRequestError(f"request id {request_id!r} is in use", param="request_id")
        mailbox: Mailbox = asyncio.Queue()
        self._mailboxes[request_id] = mailbox
        self._none_left.clear()
        return mailbox

    def _deliver(self, event: TokenEvent) -> None:
        self._put(event.request_id, event)
        if event.finish_reason is not None:
            self._remove(event.request_id)

    def _put(self, request_id: str, item: TokenEvent | OctavoError) -> None:
        mailbox = self._mailboxes.get(request_id)
        if mailbox is not None:
            mailbox.put_nowait(item)

    def _remove(self, request_id: str) -> None:
        self._mailboxes.pop(request_id, None)
        if not self._mailboxes:
            self._none_left.set()


def _ends(request_ids: Iterable[str], reason: FinishReason, error: str | None = None) -> list[TokenEvent]:
    now = time.monotonic()
    return [TokenEvent(request_id=i, time_s=now, finish_reason=reason, error=error) for i in request_ids]
