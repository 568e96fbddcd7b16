"""Concurrency limit, disconnects, shutdown, phases and probes, API keys, tokenize routes over the ASGI application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from octavo.config import ServerConfig
from octavo.errors import ConfigError
from octavo.server.app import build_app, create_app
from octavo.server.http.keys import ApiKeys, load_api_keys
from octavo.server.state import ServerState
from octavo.text.tokenizer import FakeTokenizer
from support.fake_engine_client import FakeEngineClient, connect

KEYS = ("first-secret", "second-secret")


class RawCall:
    """One ASGI call whose client can leave at any moment."""

    def __init__(self, app: Any, path: str, body: dict[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.leave = asyncio.Event()
        self._body: bytes | None = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("test", 80)}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_leaves_aborts_its_requests(streaming: bool, n: int) -> None:
    engine = FakeEngineClient()
    engine.go.clear()
    app = create_app(engine, FakeTokenizer(), ServerConfig(), "fake")
    call = RawCall(app, "/v1/completions", {"prompt": "a", "n": n, "stream": streaming})
    await until(lambda: engine.num_pending == n)
    await asyncio.sleep(0.01)
    assert engine.aborted == []
    call.leave.set()
    await until(lambda: len(engine.aborted) == n)
    await asyncio.wait_for(call.task, 1)
    assert engine.num_pending == 0


async def test_a_client_that_leaves_before_the_first_token_gets_nothing() -> None:
    engine = FakeEngineClient()
    state = ServerState(ServerConfig(), "fake", 64)
    state.attach(engine, FakeTokenizer())
    call = RawCall(
        build_app(state, ApiKeys()), "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}
    )
    call.leave.set()
    await asyncio.wait_for(call.task, 1)
    assert engine.num_pending == 0
    assert state.limiter.num_in_flight == 0
    assert not state.guards


async def test_queue_full_is_refused_with_a_measured_retry_after() -> None:
    engine = FakeEngineClient()
    state = ServerState(ServerConfig(max_num_waiting=2), "fake", max_num_running=2)
    state.attach(engine, FakeTokenizer())
    transport = httpx.ASGITransport(build_app(state, ApiKeys()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        engine.go.clear()
        inside = [asyncio.create_task(client.post("/v1/completions", json={"prompt": "a"})) for _ in range(3)]
        await until(lambda: engine.num_pending == 3)
        for streaming in (False, True):
            full = await client.post("/v1/completions", json={"prompt": "a", "n": 2, "stream": streaming})
            assert (full.status_code, full.json()["error"]["code"]) == (503, "queue_full")
            assert 1 <= int(full.headers["retry-after"]) <= 120
            assert "3 requests in flight, 2 more asked for, at most 4" in full.json()["error"]["message"]
        never = await client.post("/v1/completions", json={"prompt": "a", "n": 5})
        assert (never.status_code, never.json()["error"]["param"]) == (400, "n")
        engine.go.set()
        assert [(await call).status_code for call in inside] == [200] * 3
        assert (await client.post("/v1/completions", json={"prompt": "a", "n": 4})).status_code == 200
    assert state.limiter.num_in_flight == 0


async def test_a_burst_cannot_pass_the_admission_before_the_engine_has_seen_it() -> None:
    engine = FakeEngineClient()
    async with connect(engine, ServerConfig(max_num_waiting=3), max_num_running=1) as client:
        calls = [client.post("/v1/completions", json={"prompt": "a"}) for _ in range(20)]
        statuses = [response.status_code for response in await asyncio.gather(*calls)]
    assert set(statuses) == {200, 503}
    assert len(engine.submissions) == statuses.count(200)


async def test_phases_as_probes_and_requests_see_them() -> None:
    engine = FakeEngineClient()
    state = ServerState(ServerConfig(), "fake", 64)
    transport = httpx.ASGITransport(build_app(state, ApiKeys()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

        async def seen() -> tuple[int, int, int, str | None]:
            health, ready = await client.get("/health"), await client.get("/ready")
            answer = await client.post("/v1/completions", json={"prompt": "a"})
            assert answer.status_code != 503 or int(answer.headers["retry-after"]) >= 1
            code = answer.json().get("error", {}).get("code")
            return health.status_code, ready.status_code, answer.status_code, code

        assert await seen() == (200, 503, 503, "model_loading")
        assert (await client.get("/v1/models")).status_code == 503
        state.attach(engine, FakeTokenizer())
        assert await seen() == (200, 200, 200, None)
        engine.reason = "pending work and no step for 60 s"
        health = await client.get("/health")
        assert (health.status_code, health.json()["reason"]) == (503, engine.reason)
        assert (await client.get("/ready")).status_code == 503
        engine.reason = None
        state.drain()
        assert await seen() == (200, 503, 503, "shutting_down")
        state.fail("died four times")
        assert await seen() == (503, 503, 503, "engine_dead")
        assert "died four times" in (await client.get("/ready")).json()["reason"]


async def test_a_signal_while_loading_is_not_undone_by_the_engine_that_comes() -> None:
    state = ServerState(ServerConfig(), "fake", 64)
    state.drain()
    state.attach(FakeEngineClient(), FakeTokenizer())
    assert state.unready_reason() == "draining"


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_end_of_the_grace_time_is_an_error_and_an_abort(streaming: bool) -> None:
    engine = FakeEngineClient()
    engine.go.clear()
    state = ServerState(ServerConfig(), "fake", 64)
    state.attach(engine, FakeTokenizer())
    call = RawCall(build_app(state, ApiKeys()), "/v1/completions", {"prompt": "a", "stream": streaming})
    await until(lambda: engine.num_pending == 1 and (call.sent or not streaming))
    state.drain()
    state.end_all("the grace time is over")
    await asyncio.wait_for(call.task, 1)
    text = b"".join(message.get("body", b"") for message in call.sent).decode()
    assert "the grace time is over" in text
    assert "shutting_down" in text
    assert call.sent[0]["status"] == (200 if streaming else 503)
    assert len(engine.aborted) == 1


async def test_cancelling_the_server_task_is_not_mistaken_for_a_client_that_left() -> None:
    engine = FakeEngineClient()
    engine.go.clear()
    app = create_app(engine, FakeTokenizer(), ServerConfig(), "fake")
    call = RawCall(app, "/v1/completions", {"prompt": "a"})
    await until(lambda: engine.num_pending == 1)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert len(engine.aborted) == 1


def key_file(folder: Path, text: str, mode: int = 0o600) -> str:
    file = folder / "keys"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


async def test_every_route_but_two_needs_a_key(tmp_path: Path) -> None:
    config = ServerConfig(api_key_file=key_file(tmp_path, "# ours\n\n" + "\n".join(KEYS) + "\n"))
    engine = FakeEngineClient()
    closed = [
        "/v1/models",
        "/v1/models/fake",
        "/metrics",
        "/version",
        "/docs",
        "/openapi.json",
        "/nothing",
        "/health/",
        "/",
    ]
    async with connect(engine, config) as client:
        for path in closed:
            response = await client.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key"), path
            assert response.headers["www-authenticate"] == "Bearer"
        assert (await client.post("/v1/completions", json={"prompt": "a"})).status_code == 401
        for path in ("/health", "/ready"):
            assert (await client.get(path)).status_code == 200
        for headers in (
            {"authorization": "Bearer wrong-secret"},
            {"authorization": KEYS[0]},
            {"authorization": "Basic " + KEYS[0]},
            {"authorization": "Bearer " + KEYS[0] + "x"},
            {"authorization": "Bearer "},
            {"x-api-key": ""},
        ):
            assert (await client.get("/v1/models", headers=headers)).status_code == 401, headers
        for headers in ({"authorization": f"bearer  {KEYS[1]}"}, {"x-api-key": KEYS[0]}):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
            assert (await client.get("/nothing", headers=headers)).status_code == 404
    assert engine.submissions == []


async def test_each_key_is_a_tenant_of_its_own(tmp_path: Path) -> None:
    config = ServerConfig(api_key_file=key_file(tmp_path, "\n".join(KEYS)))
    engine = FakeEngineClient()
    async with connect(engine, config) as client:
        for key in (*KEYS, KEYS[0]):
            await client.post("/v1/completions", json={"prompt": "a"}, headers={"authorization": f"Bearer {key}"})
    tenants = [submission.tenant for submission in engine.submissions]
    assert tenants[0] == tenants[2] != tenants[1]
    assert all(tenant and key not in tenant for tenant in tenants for key in KEYS)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("", 0o600, "holds no key"),
        ("# only a comment\n", 0o600, "holds no key"),
        ("good-secret\n", 0o662, "lets other users change it; run chmod 600"),
        ("short\n", 0o600, "at least 8"),
        ("with some spaces\n", 0o600, "without spaces"),
    ],
)
def test_a_bad_key_file_stops_the_start(tmp_path: Path, text: str, mode: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_api_keys(key_file(tmp_path, text, mode))


def test_a_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_api_keys(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="directory"):
        load_api_keys(str(tmp_path))


async def test_request_ids_are_kept_if_sane() -> None:
    async with connect(FakeEngineClient()) as client:
        sent = await client.get("/version", headers={"x-request-id": "trace-1:2"})
        odd = await client.get("/version", headers={"x-request-id": "x" * 200})
        error = await client.get("/nothing", headers={"x-request-id": "abc"})
    assert sent.headers["x-request-id"] == "trace-1:2"
    assert odd.headers["x-request-id"] not in ("", "x" * 200)
    assert error.headers["x-request-id"] == "abc"


async def test_tokenize_and_detokenize_in_vllms_shapes() -> None:
    async with connect(FakeEngineClient()) as client:
        plain = (await client.post("/tokenize", json={"prompt": "hö", "return_token_strs": True})).json()
        assert plain == {
            "count": 4,
            "max_model_len": 512,
            "tokens": [256, 104, 195, 182],
            "token_strs": ["<bos>", "h", "bytes:\\xc3", "bytes:\\xb6"],
        }
        bare = (await client.post("/tokenize", json={"prompt": "h", "add_special_tokens": False})).json()
        assert (bare["tokens"], bare["token_strs"]) == ([104], None)
        messages = [{"role": "user", "content": "hi"}]
        chat = (await client.post("/tokenize", json={"messages": messages})).json()
        assert bytes(chat["tokens"]) == b"user: hi\nassistant:"
        open_end = {"messages": messages, "add_generation_prompt": False}
        assert bytes((await client.post("/tokenize", json=open_end)).json()["tokens"]) == b"user: hi\n"
        back = await client.post("/detokenize", json={"tokens": [256, 104, 195, 182]})
        assert back.json() == {"prompt": "<bos>hö"}
        for bad in ({}, {"prompt": "a", "messages": messages}):
            assert (await client.post("/tokenize", json=bad)).status_code == 400
        assert (await client.post("/detokenize", json={"tokens": [512]})).status_code == 400
        long = "ü" * 50_000  # in a thread
        assert (await client.post("/tokenize", json={"prompt": long})).json()["count"] == 100_001


async def test_models_and_version() -> None:
    async with connect(FakeEngineClient(), ServerConfig(served_model_name="org/name")) as client:
        (card,) = (await client.get("/v1/models")).json()["data"]
        assert (card["id"], card["object"], card["max_model_len"]) == ("org/name", "model", 512)
        assert (await client.get("/v1/models/org/name")).json() == card
        assert (await client.get("/version")).json()["version"]
        answer = await client.post("/v1/completions", json={"model": "org/name", "prompt": "a"})
        assert answer.json()["model"] == "org/name"


async def test_a_bug_of_ours_is_a_500_without_details() -> None:
    engine = FakeEngineClient()
    engine.refusal = ZeroDivisionError("secret detail")  # type: ignore[assignment]
    for streaming in (False, True):
        app = create_app(engine, FakeTokenizer(), ServerConfig(), "fake")
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post("/v1/completions", json={"prompt": "a", "stream": streaming})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert "secret" not in response.text


async def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.server.http.body.BODY_TIMEOUT_S", 0.05)
    app = create_app(FakeEngineClient(), FakeTokenizer(), ServerConfig(), "fake")
    call = RawCall(app, "/v1/completions", {})
    call._body = None  # nothing arrives, nobody leaves
    await asyncio.wait_for(call.task, 2)
    assert call.sent[0]["status"] == 400
    assert b"not received within" in call.sent[1]["body"]


async def test_a_client_that_leaves_while_sending_its_body_is_no_error_of_ours() -> None:
    app = create_app(FakeEngineClient(), FakeTokenizer(), ServerConfig(), "fake")
    call = RawCall(app, "/v1/completions", {})
    call._body = None
    call.leave.set()
    await asyncio.wait_for(call.task, 2)
    assert call.sent[0]["status"] == 499


async def test_description_and_its_page_are_served() -> None:
    async with connect(FakeEngineClient()) as client:
        document = (await client.get("/openapi.json")).json()
        page = await client.get("/docs")
    assert "/v1/chat/completions" in document["paths"]
    assert page.status_code == 200
    assert "openapi.json" in page.text


async def test_a_websocket_is_closed() -> None:
    app = create_app(FakeEngineClient(), FakeTokenizer(), ServerConfig(), "fake")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await app({"type": "websocket", "path": "/v1/completions"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]
