"""Supervisor of the engine process: crash and hang detection, failing of its requests, restarts with back-off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from octavo.config import ServerConfig
from octavo.engine.messages import EngineReady, Refused, Report, Start, describe
from octavo.engine.pending import PendingRequests
from octavo.engine.process_handle import ENGINE_COMMAND, EngineProcess, Spawned
from octavo.engine.watchdog import ProgressWatch, RestartBudget
from octavo.errors import EngineDeadError, LoadingError, OctavoError
from octavo.types import EngineStats

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Supervision:
    """How patient the supervisor is; the fields are those of ``ServerConfig``."""

    hang_timeout_s: float = 60.0
    start_timeout_s: float = 300.0
    max_restarts: int = 3
    restart_window_s: float = 300.0

    @classmethod
    def of(cls, config: ServerConfig) -> Supervision:
        """The four settings of the server that concern the supervisor."""
        return cls(config.hang_timeout_s, config.start_timeout_s, config.max_restarts, config.restart_window_s)


@dataclass(frozen=True, slots=True)
class EngineHooks:
    """Who else wants to hear of it; called on the event loop, must be quick and not raise."""

    on_report: Callable[[EngineStats], None] | None = None  # after every step
    on_restart: Callable[[], None] | None = None  # the engine is down and another is about to be started


class Supervisor:
    """Owns the engine process of the moment. When one goes down, every pending request has ended before another starts."""

    def __init__(
        self,
        start: Start,
        limits: Supervision,
        pending: PendingRequests,
        hooks: EngineHooks,
        command: tuple[str, ...] = ENGINE_COMMAND,
        early: Spawned | None = None,
    ) -> None:
        self._start, self._limits, self._pending, self._hooks, self._command = start, limits, pending, hooks, command
        self._early = early  # the first engine's process, if it runs already
        self._watch = ProgressWatch(limits.hang_timeout_s)
        self._budget = RestartBudget(limits.max_restarts, limits.restart_window_s)
        self._process: EngineProcess | None = None
        self._unavailable = "the engine is loading its model"  # why there is no process
        self._task: asyncio.Task[None] | None = None
        self.ready: EngineReady | None = None
        self.failed = asyncio.Event()
        self.failed_reason: str | None = None

    @property
    def process(self) -> EngineProcess:
        """The engine that takes requests. While there is none: ``LoadingError`` the first time, then ``EngineDeadError``."""
        if self._process is None:
            raise LoadingError(self._unavailable) if self.ready is None else EngineDeadError(self._unavailable)
        return self._process

    @property
    def has_process(self) -> bool:
        """An engine is loaded and takes requests."""
        return self._process is not None

    def unhealthy_reason(self) -> str | None:
        """Why no request could be served now: no process, or it hangs; None if all is well."""
        return self._unavailable if self._process is None else self._watch.hung

    def work_begins(self) -> None:
        """A request was submitted to an engine that had none."""
        self._watch.progressed()

    async def start(self) -> None:
        """Load the engine and watch it from now on. Raises the engine's own start error; nothing is retried yet."""
        await self._launch()
        self._task = asyncio.create_task(self._supervise(), name="engine-supervisor")

    async def close(self) -> None:
        """End the engine, gently if it listens. Pending requests get their terminal error now."""
        process, self._process = self._process, None
        self._unavailable = "the server is shutting down"
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._pending.fail_all("the server is shutting down; send the request to another one")
        if process is not None:
            await process.stop()

    async def _launch(self) -> None:
        early, self._early = self._early, None
        process = await EngineProcess.launch(self._command, self._start, self._on_message, early)
        try:
            self.ready = await process.wait_ready(self._limits.start_timeout_s)
        except BaseException:  # cancelled as well: no process is left behind
            await process.end()
            raise
        self._process = process

    def _on_message(self, message: Report | Refused) -> None:
        self._pending.handle(message)
        if isinstance(message, Report):
            self._watch.progressed()
            if self._hooks.on_report is not None:
                self._hooks.on_report(message.stats)

    async def _supervise(self) -> None:
        try:
            why = await self._until_down()
            while self._may_restart(why):
                await asyncio.sleep(self._budget.backoff_s)
                try:
                    await self._launch()
                except OctavoError as error:
                    why = f"the engine did not start again: {error.message}"
                else:
                    _log.warning("a new engine is ready (pid %d)", self.process.pid)
                    why = await self._until_down()
        except Exception as error:
            self._give_up(f"the engine's supervisor failed: {describe(error)}")
            raise

    async def _until_down(self) -> str:
        """Watch the engine until it is gone, by itself or killed because it hangs; returns why."""
        process = self.process
        down = asyncio.ensure_future(process.down.wait())
        try:
            while not (down.done() or self._watch.hung):
                await asyncio.wait({down}, timeout=self._watch.interval_s)
                self._watch.tick(time.monotonic(), len(self._pending))
        finally:
            down.cancel()
        hung = None if process.down.is_set() else self._watch.hung
        self._process, self._unavailable = None, hung or "the engine died"
        await process.end()
        self._watch.progressed()
        return hung or process.why_down

    def _may_restart(self, why: str) -> bool:
        """Account for an engine that is down: end its requests, decide whether another is started."""
        allowed, limits = self._budget.died(time.monotonic()), self._limits
        if not allowed:
            self._give_up(
                f"{why}; it went down {self._budget.num_recent} times within {limits.restart_window_s:g} s "
                "and is not started again: sending the request again does not help"
            )
            return False
        _log.warning("%s (restart %d of %d)", why, self._budget.num_recent, limits.max_restarts)
        self._unavailable = f"{why}; it is being restarted: sending the request again in a few seconds may help"
        self._pending.fail_all(self._unavailable)
        if self._hooks.on_restart is not None:
            self._hooks.on_restart()
        return True

    def _give_up(self, reason: str) -> None:
        self._process, self._unavailable, self.failed_reason = None, reason, reason
        self._pending.fail_all(reason)
        self.failed.set()
