"""The life of a real server process: keys, signals, a taken port, an engine that is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from support.server_process import ServerProcess

FAKE = ("--executor", "fake", "--fake-step-ms", "10")
LONG: dict[str, Any] = {"prompt": "a", "max_tokens": 150, "ignore_eos": True}


class Answer(threading.Thread):
    """One request on its way, in a thread."""

    def __init__(self, server: ServerProcess, **body: Any) -> None:
        super().__init__(daemon=True)
        self._url, self._body = server.url + "/v1/completions", {**LONG, **body}
        self.response: httpx.Response | None = None
        before = server.metric("octavo_num_requests_running")
        self.start()
        server.until(lambda: server.metric("octavo_num_requests_running") > before, 15)

    def run(self) -> None:
        self.response = httpx.post(self._url, json=self._body, timeout=30)

    def result(self) -> httpx.Response:
        self.join(20)
        assert self.response is not None
        return self.response


def test_a_key_is_needed(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-good-secret\n")
    keys.chmod(0o600)
    with ServerProcess(*FAKE, "--api-key-file", str(keys)) as server:
        bad = openai.OpenAI(base_url=server.url + "/v1", api_key="a-bad-secret", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="wrong API key"):
            bad.models.list()
        good = openai.OpenAI(base_url=server.url + "/v1", api_key="a-good-secret", max_retries=0)
        assert [model.id for model in good.models.list()] == ["fake"]
    assert "secret" not in server.output


@pytest.mark.parametrize("streaming", [False, True])
def test_sigterm_lets_running_requests_finish(streaming: bool) -> None:
    with ServerProcess(*FAKE) as server:
        answer = Answer(server, stream=streaming)
        server.signal(signal.SIGTERM)
        server.until(lambda: server.get("/ready").status_code == 503, 10)
        assert server.get("/health").status_code == 200
        refused = httpx.post(server.url + "/v1/completions", json=LONG)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert int(refused.headers["retry-after"]) >= 1
        response = answer.result()
        assert response.status_code == 200
        if streaming:
            assert response.text.endswith("data: [DONE]\n\n")
            assert "error" not in response.text
        else:
            assert response.json()["usage"]["completion_tokens"] == 150
        assert server.exit_code() == 0
    assert "Traceback" not in server.output


@pytest.mark.parametrize("streaming", [False, True])
def test_the_grace_time_ends_the_rest_with_an_error(streaming: bool) -> None:
    with ServerProcess(*FAKE, "--grace-s", "0.3") as server:
        answer = Answer(server, max_tokens=3000, stream=streaming)
        server.signal(signal.SIGTERM)
        assert "shutting_down" in answer.result().text
        assert server.exit_code() == 0
    assert "Traceback" not in server.output


def test_sigterm_while_loading_leaves_at_once() -> None:
    with ServerProcess(*FAKE, wait=False) as server:
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    assert "Traceback" not in server.output


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_now(second: signal.Signals) -> None:
    with ServerProcess(*FAKE) as server:
        request = {**LONG, "max_tokens": 3000}
        threading.Thread(target=_ask_and_expect_a_break, args=(server.url, request), daemon=True).start()
        server.until(lambda: server.metric("octavo_num_requests_running") == 1, 15)
        engine_pid = server.engine_pid()
        server.signal(signal.SIGINT)
        server.until(lambda: server.get("/ready").status_code == 503, 10)
        server.signal(second)
        assert server.exit_code() == 128 + second
    assert not Path(f"/proc/{engine_pid}/stat").exists()


def _ask_and_expect_a_break(url: str, body: dict[str, Any]) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.post(url + "/v1/completions", json=body, timeout=30).raise_for_status()


def test_a_taken_port_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "octavo.cli.main", "serve", "--executor", "fake", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode not in (0, None)
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 100)
    command = [sys.executable, "-m", "octavo.cli.main", "serve", str(broken), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode not in (0, None)
    assert "broken.gguf" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lost_engine_is_replaced_and_repeated_deaths_end_the_server() -> None:
    with ServerProcess(*FAKE, "--max-restarts", "1") as server:
        answer = Answer(server, max_tokens=3000)
        first = server.engine_pid()
        os.kill(first, signal.SIGKILL)
        lost = answer.result()
        assert (lost.status_code, lost.json()["error"]["code"]) == (503, "engine_dead")
        assert int(lost.headers["retry-after"]) >= 1
        server.until(lambda: server.get("/ready").status_code == 200, 20)
        assert server.metric("octavo_engine_restarts_total") == 1
        assert httpx.post(server.url + "/v1/completions", json={"prompt": "a"}).status_code == 200
        answer = Answer(server, max_tokens=3000, stream=True)
        os.kill(server.engine_pid(), signal.SIGKILL)
        assert '"error"' in answer.result().text
        assert server.exit_code() == 70
    assert "the engine is lost" in server.output
