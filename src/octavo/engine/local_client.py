"""The engine in a thread of this process, as ``types.EngineClient``: for tests, notebooks and small embedded servers."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from octavo.engine.loop import Command, run_loop
from octavo.engine.messages import Abort, Failed, FromEngine, Refused, Report, Shutdown, Submit, failure
from octavo.engine.pending import PendingRequests
from octavo.errors import EngineDeadError, ShuttingDownError
from octavo.types import EngineInfo, EngineStats, Submission, TokenEvent

if TYPE_CHECKING:
    from octavo.engine.core import Engine

_JOIN_TIMEOUT_S = 5.0


class LocalEngineClient:
    """Takes the engine over: from now on only its thread touches it. ``await close()`` ends both.

    Requests belong to the event loop that submits them, one loop at a time. An engine whose step raises is dead for good:
    its requests get their terminal errors, later ones ``EngineDeadError``.
    """

    def __init__(self, engine: Engine, hang_timeout_s: float = 60.0) -> None:
        self._engine = engine
        self._hang_timeout_s = hang_timeout_s
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._pending = PendingRequests()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._dead: str | None = None
        self._progress_s = 0.0  # the newest step, or when work began after a time without
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    @property
    def stats(self) -> EngineStats:
        return self._pending.stats

    @property
    def num_pending(self) -> int:
        return len(self._pending)

    def unhealthy_reason(self) -> str | None:
        if self._dead is not None:
            return self._dead
        silence_s = time.monotonic() - self._progress_s
        if len(self._pending) and silence_s > self._hang_timeout_s:
            return f"the engine has pending work and finished no step for {silence_s:.1f} s"
        return None

    def generate(self, submission: Submission) -> AsyncGenerator[TokenEvent, None]:
        """See ``EngineClient.generate``; the first ``anext`` submits."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._pending, self._loop = PendingRequests(), loop  # what an earlier loop left behind has no reader
        return self._pending.stream(submission.request_id, lambda: self._submit(submission), self._abort)

    async def drain(self, grace_s: float) -> None:
        """Take no new requests, let the running ones finish for ``grace_s`` seconds, then abort the rest."""
        self._draining = True
        await self._pending.drain(grace_s, self._abort)

    async def close(self) -> None:
        """End the thread after its step. Can be called again."""
        self._dead = self._dead or "the engine was closed"
        self._commands.put(Shutdown())
        await asyncio.to_thread(self._thread.join, _JOIN_TIMEOUT_S)
        self._pending.fail_all(self._dead)

    def _submit(self, submission: Submission) -> None:
        if self._dead is not None:
            raise EngineDeadError(self._dead)
        if self._draining:
            raise ShuttingDownError("the engine is shutting down and takes no new requests")
        if len(self._pending) == 1:
            self._progress_s = time.monotonic()
        self._commands.put(Submit(submission))

    def _abort(self, request_id: str) -> None:
        self._commands.put(Abort(request_id))

    def _handle(self, pending: PendingRequests, message: FromEngine) -> None:
        match message:
            case Report() | Refused():
                self._progress_s = time.monotonic()
                pending.handle(message)
            case Failed():
                pending.fail_all(f"{self._dead}; sending the request again does not help")

    # -- the engine's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            run_loop(self._engine, self._commands, self)
        except Exception as error:  # told to every request and to unhealthy_reason
            last_word = failure(error)
            self._dead = f"the engine failed: {last_word.message}"
            self.send(last_word)
        finally:
            self._engine.close()

    def send(self, message: FromEngine) -> None:
        """``Outlet``: from the engine's thread to the event loop."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._handle, self._pending, message)

    def flush(self) -> None:
        """``Outlet``: nothing waits here."""
