"""Main program of the engine process: ``python -m octavo.engine.process FD``, FD its end of the server's socket.

The main thread runs the loop, a reader thread only moves commands from the socket to a queue. The process lives as long
as its server: it ignores SIGINT and SIGTERM (the server decides when it ends) and is gone as soon as the server is. On
Linux the kernel sees to that too, even if this process is stopped: it is killed with the thread that started it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import queue
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from octavo.engine.loop import Command, run_loop
from octavo.engine.messages import (
    CommandDecoder,
    EngineReady,
    FrameReader,
    FrameWriter,
    FromEngine,
    Start,
    failure,
)
from octavo.errors import OctavoError
from octavo.observability.logs import setup_logging

if TYPE_CHECKING:
    from octavo.engine.build import BuiltEngine

EXIT_FAILED = 1
EXIT_ORPHANED = 3
RECEIVE_BYTES = 256 << 10
MAX_UNSENT_BYTES = 8 << 20
AHEAD_NATIVE = ("octavo.executor.native_executor", "octavo.models.packed_cache")
AHEAD_TORCH = ("octavo.executor.torch_executor", "octavo.models.assemble")
_PR_SET_PDEATHSIG = 1

_log = logging.getLogger("octavo.engine.process")  # not __name__: this module is run as __main__


Build = Callable[[Start], "BuiltEngine"]


class Outbox:
    """Frames on their way to the server, sent without waiting for it as long as little is unsent.

    A server that is busy for a moment costs the engine nothing: the rest waits here and goes with the next frame. Beyond
    ``MAX_UNSENT_BYTES`` the engine waits until the server reads: nobody would hear more tokens, and memory stays bounded.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._writer = FrameWriter()
        self._unsent = bytearray()

    def send(self, message: FromEngine) -> None:
        """Queue the message; blocks only beyond ``MAX_UNSENT_BYTES``. A lost server ends the process."""
        self._unsent += self._writer.frame(message)
        self._send_some()
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Wait until the server has taken everything."""
        while self._unsent:
            select.select([], [self._sock], [])
            self._send_some()

    def _send_some(self) -> None:
        # MSG_DONTWAIT and not a non-blocking socket: the reader thread shares it and does block.
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return
        except ConnectionError:
            _leave_orphaned()


class CommandReader(threading.Thread):
    """Socket -> queue. Daemon: it never keeps a finished engine alive."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(name="command-reader", daemon=True)
        self._sock = sock
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def run(self) -> None:
        frames, decoder = FrameReader(), CommandDecoder()
        while data := self._receive():
            try:
                for body in frames.feed(data):
                    self.commands.put(decoder.decode(body))
            except OctavoError as error:  # no request can be saved once the stream is lost
                _log.error("%s", error.message)
                os._exit(EXIT_FAILED)
        _leave_orphaned()

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(RECEIVE_BYTES)
        except ConnectionError:
            return b""


def _leave_orphaned() -> NoReturn:
    """The server is gone. The main thread may be deep inside a step: do not wait for it."""
    os._exit(EXIT_ORPHANED)


def serve(sock: socket.socket, build: Build, ahead: Callable[[], None] | None = None) -> int:
    """One engine's whole life behind ``sock``; returns the exit code. ``ahead`` is done while Start is on its way."""
    reader, outbox = CommandReader(sock), Outbox(sock)
    reader.start()
    try:
        if ahead is not None:
            ahead()
        start = reader.commands.get()
        if not isinstance(start, Start):
            raise RuntimeError(f"expected Start first, got {type(start).__name__}")
        built = build(start)
    except OctavoError as error:  # the server prints it: no traceback
        return _fail(outbox, error)
    except Exception as error:
        _log.exception("the engine could not start")
        return _fail(outbox, error)
    # What is loaded stays: keep it out of every later garbage collection, whose pauses a step would feel.
    gc.collect()
    gc.freeze()
    outbox.send(EngineReady(info=built.engine.info, reasons=built.resolution.reasons))
    try:
        run_loop(built.engine, reader.commands, outbox)
        built.engine.close()
    except Exception as error:
        _log.exception("a step failed; this engine ends, the server starts another")
        return _fail(outbox, error)
    return 0


def _fail(outbox: Outbox, error: Exception) -> int:
    outbox.send(failure(error))
    outbox.flush()
    return EXIT_FAILED


def live_as_long_as_the_server() -> None:
    """Ignore the signals that are meant for the server, and die with it even if this process hangs."""
    # SIGTTOU: this process is in the background of its terminal, and may write its log there all the same.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run_process(arguments: list[str], build: Build) -> int:
    """What ``main`` does, with any way to build the engine. ``arguments``: ``--import-ahead`` or nothing, and the number of
    the inherited socket."""
    live_as_long_as_the_server()
    setup_logging()
    with socket.socket(fileno=int(arguments[-1])) as sock:
        return serve(sock, build, import_ahead if "--import-ahead" in arguments else None)


def import_ahead() -> None:
    """What most models need, before it is known which one: most of the time from start to ready is this.

    Where the native kernels will serve, torch is not imported: it would cost more memory than a small model.
    """
    from octavo.extras import is_installed
    from octavo.hardware import find_gpus
    from octavo.kernels.native import library

    has_torch = is_installed("torch")
    is_native = library.best_isa() and not (has_torch and find_gpus())
    ahead = AHEAD_NATIVE if is_native else AHEAD_TORCH if has_torch else ()
    for name in (*ahead, "octavo.engine.build", "octavo.models.gguf"):
        importlib.import_module(name)


def load(start: Start) -> BuiltEngine:
    """The real engine. The heavy imports happen here, after the process has learnt to die with its server."""
    from octavo.engine.build import build_engine

    path = None if start.model.path is None else Path(start.model.path)
    return build_engine(start.config, start.model.name, path, frozenset(start.eos_token_ids))


def main() -> NoReturn:
    """Entry point of ``python -m octavo.engine.process``."""
    code = run_process(sys.argv[1:], load)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: the interpreter's tear-down may wait for native threads


if __name__ == "__main__":
    main()
