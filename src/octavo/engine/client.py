"""``EngineClient`` over an engine in a process of its own. Imports no torch: the server process stays small."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from octavo.engine.messages import Abort, Start, Submit
from octavo.engine.pending import PendingRequests
from octavo.engine.process_handle import ENGINE_COMMAND, Spawned
from octavo.engine.supervisor import EngineHooks, Supervision, Supervisor
from octavo.errors import LoadingError, ShuttingDownError
from octavo.types import EngineInfo, EngineStats, Submission, TokenEvent


class ProcessEngineClient:
    """``await start()``, then ``generate`` as often as wanted, at last ``await drain(...)`` and ``await close()``.

    Everything happens on the event loop that ``start`` ran on. ``failed`` is set once the engine has gone down too often:
    nothing can be served any more, ``failed_reason`` says why. ``command`` starts another engine program (for tests).
    ``early`` is a process that was started before it was known what to load (see ``process_handle.early_engine``).
    """

    def __init__(
        self,
        start: Start,
        limits: Supervision | None = None,
        hooks: EngineHooks | None = None,
        command: tuple[str, ...] = ENGINE_COMMAND,
        early: Spawned | None = None,
    ) -> None:
        self._pending = PendingRequests()
        self._supervisor = Supervisor(
            start, limits or Supervision(), self._pending, hooks or EngineHooks(), command, early
        )
        self._draining = False

    async def start(self) -> None:
        """Until the engine is ready. Raises its start error (``ConfigError``, ``ModelError``, ``EngineError`` ...)."""
        await self._supervisor.start()

    @property
    def info(self) -> EngineInfo:
        """Of the newest engine. Raises ``LoadingError`` before the first one is ready."""
        if self._supervisor.ready is None:
            raise LoadingError("the engine is loading its model")
        return self._supervisor.ready.info

    @property
    def reasons(self) -> dict[str, str]:
        """Why each ``auto`` setting was resolved as it was; empty before the engine is ready."""
        return self._supervisor.ready.reasons if self._supervisor.ready is not None else {}

    @property
    def stats(self) -> EngineStats:
        """Of the newest report; zeros before the first."""
        return self._pending.stats

    @property
    def num_pending(self) -> int:
        """Requests handed to the engine whose end it has not confirmed."""
        return len(self._pending)

    @property
    def failed(self) -> asyncio.Event:
        """Set when the supervisor has given up for good."""
        return self._supervisor.failed

    @property
    def failed_reason(self) -> str | None:
        """Why it gave up; None while it has not."""
        return self._supervisor.failed_reason

    @property
    def engine_pid(self) -> int | None:
        """The engine's process id; None while there is no engine."""
        return self._supervisor.process.pid if self._supervisor.has_process else None

    def unhealthy_reason(self) -> str | None:
        """Why no request could be served now; None if one could."""
        return self._supervisor.unhealthy_reason()

    def generate(self, submission: Submission) -> AsyncGenerator[TokenEvent, None]:
        """See ``EngineClient.generate``. The first ``anext`` submits and raises ``LoadingError``,
        ``EngineDeadError``, ``ShuttingDownError`` or what the engine refused the request with; later ends are events."""
        return self._pending.stream(submission.request_id, lambda: self._submit(submission), self._abort)

    async def drain(self, grace_s: float) -> None:
        """Take no new requests, let the running ones finish for ``grace_s`` seconds, then abort the rest."""
        self._draining = True
        await self._pending.drain(grace_s, self._abort)

    async def close(self) -> None:
        """End the engine process; it is gone when this returns. Can be called again."""
        await self._supervisor.close()

    def _submit(self, submission: Submission) -> None:
        if self._draining:
            raise ShuttingDownError("the server is shutting down and takes no new requests")
        process = self._supervisor.process
        process.send(Submit(submission))
        if len(self._pending) == 1:
            self._supervisor.work_begins()

    def _abort(self, request_id: str) -> None:
        if self._supervisor.has_process:  # a dead engine has no request to abort
            self._supervisor.process.send(Abort(request_id))
