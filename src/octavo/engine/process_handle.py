"""The server's handle on one engine process: spawn, socket messages, readiness, exit reason, stop and kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from octavo.engine.messages import (
    EngineMessageDecoder,
    EngineReady,
    Failed,
    FrameReader,
    FrameWriter,
    FromEngine,
    Refused,
    Report,
    Shutdown,
    Start,
    ToEngine,
    restore,
)
from octavo.errors import EngineError, OctavoError
from octavo.executor.threads import calm_threads

ENGINE_COMMAND = (sys.executable, "-P", "-m", "octavo.engine.process")
EARLY_COMMAND = (*ENGINE_COMMAND, "--import-ahead")  # for ``spawn`` before it is known which model is loaded
STOP_TIMEOUT_S = 2.0  # a step in progress may be long; whoever waits for it has been answered
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process and our end of its socket."""

    process: subprocess.Popen[bytes]
    sock: socket.socket

    def discard(self) -> None:
        """Nobody needs it: end it and wait until it is gone. Does nothing to one that has ended."""
        self.process.kill()
        self.process.wait()
        self.sock.close()


def spawn(command: tuple[str, ...]) -> Spawned:
    """Start an engine process, which waits for its ``Start`` now. Raises ``EngineError``."""
    environment = dict(os.environ)
    calm_threads(environment)
    ours, theirs = socket.socketpair()
    with theirs:
        fd = theirs.fileno()
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is ours, no shell
                [*command, str(fd)],
                pass_fds=[fd],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=2,  # the server's standard output belongs to the server
                process_group=0,  # Ctrl-C in the terminal is the server's to handle
            )
        except OSError as error:
            ours.close()
            raise EngineError(f"cannot start the engine process {command[0]}: {error}") from None
    return Spawned(process, ours)


@contextlib.contextmanager
def early_engine(executor: str) -> Iterator[Spawned | None]:
    """An engine process whose imports, the longest of all, begin now; ended on leaving, if it lives still.

    None for the fake executor, whose engine imports next to nothing. Raises ``EngineError``.
    """
    early = None if executor == "fake" else spawn(EARLY_COMMAND)
    try:
        yield early
    finally:
        if early is not None:
            early.discard()


class EngineProcess(asyncio.Protocol):
    """A started process and its socket. Made by ``EngineProcess.launch``.

    ``on_message`` is called for every ``Report`` and ``Refused``. ``down`` is set once the socket is closed, whoever closed
    it; ``end`` must be awaited then, so that no process is left behind.
    """

    def __init__(self, process: subprocess.Popen[bytes], on_message: Callable[[Report | Refused], None]) -> None:
        self._process = process
        self._on_message = on_message
        self._transport: asyncio.WriteTransport | None = None
        self._frames, self._decoder, self._writer = FrameReader(), EngineMessageDecoder(), FrameWriter()
        self._ready: asyncio.Future[EngineReady] = asyncio.get_running_loop().create_future()
        self._failure: OctavoError | Failed | None = None
        self.down = asyncio.Event()

    @classmethod
    async def launch(
        cls,
        command: tuple[str, ...],
        start: Start,
        on_message: Callable[[Report | Refused], None],
        early: Spawned | None = None,
    ) -> EngineProcess:
        """Start the process (or take the one that was started ``early``, if it lives) and send ``start``; ``wait_ready``
        tells how it went."""
        spawned = early if early is not None and early.process.poll() is None else spawn(command)
        try:
            loop = asyncio.get_running_loop()
            _, engine = await loop.create_unix_connection(lambda: cls(spawned.process, on_message), sock=spawned.sock)
        except BaseException:  # cancelled as well: nobody else knows of the process
            spawned.discard()
            raise
        engine.send(start)
        return engine

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        """Never blocks. Raises ``InvalidRequestError`` if it cannot be encoded; a dead engine hears nothing."""
        frame = self._writer.frame(message)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    async def wait_ready(self, timeout_s: float) -> EngineReady:
        """Raises the engine's own start error, or ``EngineError`` if it died or took too long."""
        down = asyncio.ensure_future(self.down.wait())
        waits: set[asyncio.Future[Any]] = {down, self._ready}
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            down.cancel()
        if self._ready.done():
            return self._ready.result()
        if not self.down.is_set():
            raise EngineError(f"the engine was not ready after {timeout_s:g} s; allow more with --start-timeout-s")
        await self.end()
        if isinstance(self._failure, Failed):
            raise restore(self._failure)
        raise EngineError(f"{self.why_down} while it was starting")

    @property
    def why_down(self) -> str:
        """What ended it, as far as is known; complete after ``end``."""
        if isinstance(self._failure, Failed):
            return f"the engine failed: {self._failure.message}"
        if self._failure is not None:
            return f"the engine was ended because of {self._failure.message}"
        code = self._process.returncode
        if code is None:
            return "the engine closed its connection"
        if code >= 0:
            return f"the engine process ended with exit code {code}"
        hint = "; the system may be out of memory" if code == -signal.SIGKILL else ""
        return f"the engine process was killed by {signal.Signals(-code).name}{hint}"

    def kill(self) -> None:
        """SIGKILL; does nothing if the process has been reaped."""
        self._process.kill()  # does nothing if it has been reaped

    async def stop(self) -> None:
        """Ask it to leave after its step; kill it if it does not."""
        self.send(Shutdown())
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.down.wait(), STOP_TIMEOUT_S)
        except asyncio.CancelledError:
            self.kill()
            raise
        await self.end()

    async def end(self) -> None:
        """Kill what still runs, close the socket, reap the process."""
        try:
            if self.down.is_set():
                await self._wait_exit(1.0)  # it closed its end: let it finish, so that its exit code tells why
        finally:  # cancelled as well
            self.kill()
            if self._transport is not None:
                self._transport.close()
        await self._wait_exit(STOP_TIMEOUT_S)

    async def _wait_exit(self, timeout_s: float) -> None:
        for _ in range(int(timeout_s / _POLL_S)):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(_POLL_S)

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is one without inheriting from it

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._handle(self._decoder.decode(body))
        except OctavoError as error:  # after garbage nothing it says can be trusted
            self._failure = error
            self.kill()
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.down.set()

    def _handle(self, message: FromEngine) -> None:
        match message:
            case Report() | Refused():
                self._on_message(message)
            case EngineReady():
                self._ready.set_result(message)
            case Failed():
                self._failure = message
