"""A server process started by the benchmark: ready time, peak memory, and an end for it and all its children."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from octavo.errors import BenchError, ConfigError

START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.05
LOOK_EVERY_S = 0.5
TAIL_BYTES = 2000


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command_words(text: str, port: int) -> list[str]:
    """``llama-server --port {port} ...`` -> words; no shell. Raises ``ConfigError`` if the command names no ``{port}``."""
    if "{port}" not in text:
        raise ConfigError(f"--start {text!r}: the command must take its port: write {{port}} where it goes")
    try:
        return [word.replace("{port}", str(port)) for word in shlex.split(text)]
    except ValueError as error:
        raise ConfigError(f"--start {text!r}: {error}") from None


class HeldSignals:
    """SIGINT and SIGTERM wait from entry to ``release``: one that raised between the fork of a server and our knowing its
    process would leave that server behind, and one that raised in a callback of the interpreter's (while something is imported
    or collected) would be lost. Their handlers run in the main thread, so elsewhere there is nothing to hold.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self.came: list[int] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, lambda number, frame: self.came.append(number))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Handlers are again what they were; what came meanwhile is raised now. A second call does nothing."""
        while self._before:
            signal.signal(*self._before.popitem())
        while self.came:
            signal.raise_signal(self.came.pop())


class LaunchedServer:
    """``with LaunchedServer("llama", words, port) as server: server.url`` -- it answers inside, and is gone after it.

    ``ready_s``: from the start of the process to the first 200 of ``/v1/models`` (and of ``/health``, where there is one).
    ``peak_rss_bytes``: the largest sum of resident memory over the process and its children that was seen, twice a second.
    ``idle_cores``: how many cores all of them kept busy in the quietest second since it was ready: what a server that is not
    asked takes from its neighbours (threads that spin, polling loops). None: it did not live that long.
    """

    def __init__(self, name: str, words: Sequence[str], port: int, timeout_s: float = START_TIMEOUT_S) -> None:
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        self.ready_s: float | None = None
        self.peak_rss_bytes = 0
        self.idle_cores: float | None = None
        self._words, self._timeout_s = list(words), timeout_s
        self._over = threading.Event()

    def __enter__(self) -> Self:
        started_s = time.monotonic()
        with HeldSignals() as held:
            self._start()
            try:
                threading.Thread(target=self._watch, daemon=True).start()
                self._await(started_s, held)
                self.ready_s = time.monotonic() - started_s
                held.release()
            except BaseException:
                self._stop()
                raise
        return self

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _stop, with the server
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command, no shell
                self._words,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise BenchError(f"{self.name}: cannot start {self._words[0]}: {error.strerror}") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _await(self, started_s: float, held: HeldSignals) -> None:
        with httpx.Client(timeout=5.0) as client:
            while not self._answers(client):
                if held.came:
                    held.release()
                if (code := self._process.poll()) is not None:
                    raise BenchError(f"{self.name} ended with code {code} before it was ready; it said: {self._tail()}")
                if time.monotonic() - started_s > self._timeout_s:
                    raise BenchError(f"{self.name} was not ready after {self._timeout_s:g} s; it said: {self._tail()}")
                time.sleep(POLL_S)

    def _answers(self, client: httpx.Client) -> bool:
        """/v1/models lists something, and /health, if there is one, does not say "not yet" (llama-server: 503 while loading)."""
        try:
            if client.get(f"{self.url}/v1/models").status_code != 200:
                return False
            return client.get(f"{self.url}/health").status_code < 500
        except httpx.HTTPError:
            return False

    def obituary(self) -> str:
        """How it ended and what it said last, if it is no longer there; empty while it lives."""
        code = self._process.poll()
        if code is None:
            return ""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        memory = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"the server {how}{memory}; it said: {self._tail()}"

    def _tail(self) -> str:
        self._log.seek(max(0, os.fstat(self._log.fileno()).st_size - TAIL_BYTES))
        return " ".join(self._log.read().decode(errors="replace").split()) or "nothing"

    def _watch(self) -> None:
        before: tuple[float, float] | None = None  # time and CPU time at the start of a second
        while not self._over.wait(LOOK_EVERY_S):
            self.peak_rss_bytes = max(self.peak_rss_bytes, _rss_bytes(self._process.pid))
            if self.ready_s is None:
                continue
            now_s, cpu_s = time.monotonic(), _cpu_s(self._process.pid)
            if before is not None and now_s - before[0] < 1.0:
                continue
            if before is not None and cpu_s >= before[1]:
                busy = (cpu_s - before[1]) / (now_s - before[0])
                self.idle_cores = busy if self.idle_cores is None else min(self.idle_cores, busy)
            before = now_s, cpu_s

    def _stop(self) -> None:
        """SIGTERM, time to leave, SIGKILL for what is left of its family and its session, also if this is interrupted."""
        self.peak_rss_bytes = max(self.peak_rss_bytes, _rss_bytes(self._process.pid))
        self._over.set()
        family = _family(self._process.pid)
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_TIMEOUT_S)
        finally:
            for process in family:
                with suppress(psutil.Error):
                    process.kill()
            with suppress(ProcessLookupError, PermissionError):  # workers whose parent died before them
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._log.close()


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def _rss_bytes(pid: int) -> int:
    total = 0
    for process in _family(pid):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _cpu_s(pid: int) -> float:
    """Of all that live: a child that ended takes its time with it, so a difference may be too small for once, never too large."""
    total = 0.0
    for process in _family(pid):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total
