"""A real ``octavo serve`` in a process of its own: started, awaited, talked to, ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

START_TIMEOUT_S = 60.0


class ServerProcess:
    """``with ServerProcess("--executor", "fake") as server:`` -- ready inside the body, gone after it."""

    def __init__(self, *flags: str, wait: bool = True, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self._wait, self._start_timeout_s = wait, start_timeout_s
        self.lines: list[str] = []
        command = [sys.executable, "-m", "octavo.cli.main", "serve", "--port", "0", *flags]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OCTAVO_LOG": "info"},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            self.lines.extend(iter(said.readline, ""))

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def __enter__(self) -> Self:
        try:
            self.until(lambda: re.search(r"http://\S+", self.output))
            found = re.search(r"http://\S+", self.output)
            assert found is not None
            self.url = found[0]
            if self._wait:
                self.until(lambda: self.get("/ready").status_code == 200, self._start_timeout_s)
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the server did not leave; it said:\n{self.output}") from None

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics; 0.0 if it is not there (yet)."""
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self, timeout_s: float = 15.0) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code

    def engine_pid(self) -> int:
        (child,) = psutil.Process(self.process.pid).children()
        return child.pid

    def until(self, condition: Callable[[], object], timeout_s: float = START_TIMEOUT_S) -> None:
        """Poll; an AssertionError with the server's own words if it takes too long or the server is gone."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            alive = self.process.poll() is None
            assert alive, f"the server left with {self.process.returncode}; it said:\n{self.output}"
            assert time.monotonic() < deadline_s, f"waited {timeout_s} s in vain; the server said:\n{self.output}"
            time.sleep(0.02)
