"""An OpenAI-compatible server whose every latency, stall and error is known: what measuring tools are measured with.

In a test's loop:   ``async with serve(StubConfig(ttft="lognormal:0.05:0.5")) as stub: ... stub.url, stub.requests``
As a process:       ``python -m support.stub_server --port 0 --ttft fixed:0.01`` prints its URL; ``StubProcess`` wraps that.

The i-th request to arrive gets the i-th draw of a seeded generator. Times are computed when it arrives, so they do not depend
on how busy the machine is; ``StubRequest`` keeps both what was planned and when it was really written.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httptools
import msgspec

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
Fate = Literal["ok", "refused", "hung", "cut", "malformed", "error_event", "garbage"]


class StubConfig(msgspec.Struct, frozen=True, kw_only=True):
    seed: int = 0
    ttft: str = "fixed:0"  # seconds: fixed:X, exponential:MEAN, uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA
    chunk_interval_s: float = 0.0
    tokens_per_chunk: int = 1
    servers: int | None = None  # None: each request is served at once; N: first come, first served, N at a time
    stall_at_s: float | None = None  # the world stops so long after the first request ...
    stall_s: float = 0.0  # ... for so long: nothing is computed or sent, requests queue
    refuse_rate: float = 0.0  # an OpenAI error with status 503
    hang_rate: float = 0.0  # no response, ever
    cut_rate: float = 0.0  # the connection breaks off in the middle of the stream
    malformed_rate: float = 0.0  # an event that is not JSON in the middle
    error_event_rate: float = 0.0  # an error event in the middle
    garbage_rate: float = 0.0  # bytes that are no HTTP
    continue_first: bool = False  # "100 Continue" before each response
    die_after: int | None = None  # after so many requests everything closes for good
    usage: bool = True  # when asked for
    running_usage: bool = False  # token counts in every chunk
    done: bool = True  # ends with [DONE]
    finish: bool = True  # says a finish reason
    line_break: Literal["lf", "crlf", "cr"] = "lf"
    comments: bool = False  # a comment and an unknown field beside every event
    piece_bytes: int = 0  # writes are cut into pieces of this size; 0: one write an event
    close_each: bool = False  # "connection: close"
    drop_reused: bool = False  # closes, without a word, a connection that is used a second time
    content_length: bool = True  # of pages; without it they end with the connection
    api_key: str = ""
    metrics: bool = True
    model: str = "stub"
    plain: bool = False  # responds JSON although a stream was asked for


@dataclass
class StubRequest:
    """Times on the server's clock."""

    arrived_s: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    fate: Fate
    ttft_s: float  # drawn: service alone, without queue and stall
    first_s: float  # planned: with them
    end_s: float  # planned, of the last chunk
    written_first_s: float | None = None
    written_end_s: float | None = None
    left: bool = False  # the client closed the connection before the end


class _Body(msgspec.Struct):
    max_tokens: int = 16
    stream_options: dict[str, Any] | None = None


def draw(spec: str, rng: random.Random) -> float:
    kind, *numbers = spec.split(":")
    values = [float(number) for number in numbers]
    if kind == "fixed":
        return values[0]
    if kind == "exponential":
        return rng.expovariate(1 / values[0])
    if kind == "uniform":
        return rng.uniform(values[0], values[1])
    if kind == "lognormal":
        return values[0] * rng.lognormvariate(0.0, values[1])
    raise ValueError(f"{spec!r}: expected fixed, exponential, uniform or lognormal")


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def text_of(k: int) -> str:
    """The text of chunk k of every response."""
    return f" w{k}"


class Service:
    """When is a request's first chunk due? Queue and stall, in a time that stands still while the world does."""

    def __init__(self, config: StubConfig) -> None:
        self._config = config
        self._free_s = [0.0] * (config.servers or 0)
        self._zero_s: float | None = None

    def plan(self, arrived_s: float, ttft_s: float, stream_s: float) -> tuple[Callable[[float], float], float]:
        """A map from the world's time to the clock's, and when service of this request begins in the world's time."""
        if self._zero_s is None:
            self._zero_s = arrived_s
        zero_s, config = self._zero_s, self._config
        stall_at_s = float("inf") if config.stall_at_s is None else config.stall_at_s
        start_s = arrived_s - zero_s
        if start_s > stall_at_s:
            start_s = max(stall_at_s, start_s - config.stall_s)
        if self._free_s:
            start_s = max(start_s, heapq.heappop(self._free_s))
            heapq.heappush(self._free_s, start_s + ttft_s + stream_s)

        def clock_time(world_s: float) -> float:
            return zero_s + world_s + (config.stall_s if world_s >= stall_at_s else 0.0)

        return clock_time, start_s


class StubServer:
    def __init__(self, config: StubConfig, *, log: bool = True, clock: Callable[[], float] | None = None) -> None:
        self.config = config
        self.loop = asyncio.get_running_loop()
        self.clock = clock or self.loop.time
        self.requests: list[StubRequest] = []
        self.url = ""
        self.uds = ""
        self.in_flight = 0
        self.most_in_flight = 0
        self.in_flight_at_arrival: Counter[int] = Counter()
        self.num_connections = 0
        self.num_requests = 0
        self._log = log
        self._rng = random.Random(config.seed)
        self._service = Service(config)
        self._connections: set[StubConnection] = set()
        self._server: asyncio.Server | None = None
        self._chunks: dict[tuple[bool, int], bytes] = {}

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, uds: str = "", ssl: Any = None) -> None:
        if uds:
            self._server = await self.loop.create_unix_server(lambda: StubConnection(self), uds, backlog=4096)
            self.url, self.uds = "http://stub", uds
            return
        self._server = await self.loop.create_server(lambda: StubConnection(self), host, port, backlog=4096, ssl=ssl)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if ssl else 'http'}://{host}:{port}"

    def stop(self) -> None:
        """At once, for all."""
        if self._server is not None:
            self._server.close()
            if self.uds:
                Path(self.uds).unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.transport.abort()

    def arrive(self, path: str, headers: dict[str, str], body: bytes) -> tuple[StubRequest, _Body, list[float]]:
        """The request, and the clock times of its chunks."""
        config, now_s = self.config, self.clock()
        parsed = msgspec.json.decode(body, type=_Body)
        fate = self._fate()
        ttft_s = draw(config.ttft, self._rng)
        num_chunks = -(-parsed.max_tokens // config.tokens_per_chunk)
        stream_s = (num_chunks - 1) * config.chunk_interval_s
        clock_time, start_s = self._service.plan(now_s, ttft_s, stream_s)
        times = [clock_time(start_s + ttft_s + k * config.chunk_interval_s) for k in range(num_chunks)]
        whole = msgspec.json.decode(body) if self._log else {}
        request = StubRequest(now_s, path, headers, whole, fate, ttft_s, times[0], times[-1])
        if self._log:
            self.requests.append(request)
        self.num_requests += 1
        self.in_flight += 1
        self.in_flight_at_arrival[self.in_flight] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return request, parsed, times

    def _fate(self) -> Fate:
        config, u = self.config, self._rng.random()
        rates: list[tuple[Fate, float]] = [
            ("refused", config.refuse_rate),
            ("hung", config.hang_rate),
            ("cut", config.cut_rate),
            ("malformed", config.malformed_rate),
            ("error_event", config.error_event_rate),
            ("garbage", config.garbage_rate),
        ]
        for fate, rate in rates:
            if u < rate:
                return fate
            u -= rate
        return "ok"

    def chunk(self, chat: bool, k: int, last: bool) -> bytes:
        """The framed event of chunk k. All but the last are made once."""
        config = self.config
        if not last and (made := self._chunks.get((chat, k))) is not None:
            return made
        reason = "length" if last and config.finish else None
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason}
        choice |= {"delta": {"content": text_of(k)}} if chat else {"text": text_of(k)}
        body: dict[str, Any] = {
            "id": "stub-1",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": 1,
            "model": config.model,
            "choices": [choice],
        }
        if config.running_usage:
            body["usage"] = {"prompt_tokens": 7, "completion_tokens": (k + 1) * config.tokens_per_chunk}
        made = framed(self.dressed(event(msgspec.json.encode(body))))
        if not last:
            self._chunks[chat, k] = made
        return made

    def tail(self, parsed: _Body) -> bytes:
        """Usage, [DONE] and the end of the message."""
        tail = b""
        if self.config.usage and (parsed.stream_options or {}).get("include_usage"):
            usage = {
                "prompt_tokens": 7,
                "completion_tokens": parsed.max_tokens,
                "total_tokens": 7 + parsed.max_tokens,
                "prompt_tokens_details": {"cached_tokens": 3},
            }
            timings = {"queue_s": 0.5, "ttft_s": None}
            body = {"id": "stub-1", "model": self.config.model, "choices": [], "usage": usage, "timings": timings}
            tail += framed(self.dressed(event(msgspec.json.encode(body))))
        if self.config.done:
            tail += framed(self.dressed(event(b"[DONE]")))
        return tail + b"0\r\n\r\n"

    def dressed(self, data: bytes) -> bytes:
        """An event as this server writes it: its line breaks, comments, fields."""
        if self.config.comments:
            data = b": keep-alive\n\nid: 7\nevent: message\n" + data
        if self.config.line_break != "lf":
            data = data.replace(b"\n", b"\r\n" if self.config.line_break == "crlf" else b"\r")
        return data

    def left(self, connection: StubConnection) -> None:
        self._connections.discard(connection)

    def came(self, connection: StubConnection) -> None:
        self._connections.add(connection)
        self.num_connections += 1

    def ended(self) -> None:
        self.in_flight -= 1
        if self.config.die_after is not None and self.num_requests >= self.config.die_after:
            self.stop()

    def page(self) -> bytes:
        return (
            "# TYPE vllm:num_requests_running gauge\n"
            f'vllm:num_requests_running{{engine="0",model_name="stub"}} {self.in_flight}\n'
            "# TYPE vllm:num_requests_waiting gauge\n"
            'vllm:num_requests_waiting{engine="0",model_name="stub"} 0.0\n'
            "# TYPE vllm:kv_cache_usage_perc gauge\n"
            'vllm:kv_cache_usage_perc{engine="0",model_name="stub"} 0.25\n'
            "# TYPE vllm:generation_tokens counter\n"
            f'vllm:generation_tokens_total{{engine="0"}} {self.num_requests}\n'
        ).encode()


@dataclass(eq=False)
class StubConnection(asyncio.Protocol):
    server: StubServer
    _path: str = ""
    _headers: dict[str, str] = field(default_factory=dict)
    _body: bytes = b""
    _handle: asyncio.Handle | None = None
    _request: StubRequest | None = None
    _num_served: int = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self.server.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.left(self)
        if self._handle is not None:
            self._handle.cancel()
        if self._request is not None:
            self._request.left = True
            self._request = None
            self.server.ended()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body, self._path, self._headers = b"", "", {}

    def on_url(self, url: bytes) -> None:
        self._path += url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        key = self.server.config.api_key
        if key and self._headers.get("authorization") != f"Bearer {key}":
            self._respond(401, b'{"error": {"message": "wrong API key", "type": "authentication_error"}}')
        elif self._path.endswith("/v1/models"):
            self._respond(200, msgspec.json.encode({"object": "list", "data": [{"id": self.server.config.model}]}))
        elif self._path.endswith("/metrics") and self.server.config.metrics:
            self._respond(200, self.server.page(), "text/plain; version=0.0.4")
        elif self._path.endswith(("/v1/completions", "/v1/chat/completions")):
            self._serve()
        else:
            self._respond(404, b'{"error": {"message": "no such route", "type": "invalid_request_error"}}')

    @property
    def _closes(self) -> bool:
        return self.server.config.close_each or self._headers.get("connection") == "close"

    def _respond(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        config = self.server.config
        head = f"HTTP/1.1 {status} Because\r\ncontent-type: {content_type}\r\n".encode()
        if config.content_length:
            head += f"content-length: {len(body)}\r\n".encode()
        if self._closes:
            head += b"connection: close\r\n"
        self.transport.write(head + b"\r\n" + body)
        if self._closes or not config.content_length:
            self.transport.close()

    def _serve(self) -> None:
        server = self.server
        self._num_served += 1
        if server.config.drop_reused and self._num_served > 1:
            self.transport.close()
            return
        if server.config.plain:
            self._respond(200, b'{"choices": [{"text": "all at once"}]}')
            return
        request, parsed, times = server.arrive(self._path, self._headers, self._body)
        self._request = request
        self._parsed, self._times = parsed, times
        self._chat = self._path.endswith("/v1/chat/completions")
        self._next = 0
        self._middle = len(times) // 2
        if request.fate != "hung":
            self._wait()

    def _wait(self) -> None:
        delay_s = self._times[self._next] - self.server.clock()
        if delay_s > 0:
            self._handle = self.server.loop.call_later(delay_s, self._step)
        else:
            self._step()

    def _step(self) -> None:
        """Write what is due."""
        server, request = self.server, self._request
        assert request is not None
        now_s = server.clock()
        if self._times[self._next] > now_s + 1e-9:  # a timer that fired too early
            self._wait()
            return
        if self._next == 0:
            if request.fate == "refused":
                self._end()
                self._respond(503, b'{"error": {"message": "queue full", "type": "overloaded_error"}}')
                return
            if request.fate == "garbage":
                self._end()
                self._write(b"SSH-2.0-stub\r\n\r\n")
                return
            request.written_first_s = now_s
            if server.config.continue_first:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        out = [] if self._next else [HEAD + (b"connection: close\r\n\r\n" if self._closes else b"\r\n")]
        last = len(self._times) - 1
        while self._next <= last and self._times[self._next] <= now_s + 1e-9:
            if self._next == self._middle and request.fate in ("cut", "malformed", "error_event"):
                self._fail(out, request.fate)
                return
            out.append(server.chunk(self._chat, self._next, self._next == last))
            self._next += 1
        if self._next <= last:
            self._write(b"".join(out))
            self._wait()
            return
        out.append(server.tail(self._parsed))
        self._end()
        self._write(b"".join(out), close=self._closes)

    def _fail(self, out: list[bytes], fate: Fate) -> None:
        if fate == "cut":
            self._end()
            self._write(b"".join(out), close=True)
            return
        data = b'{"choices": [{' if fate == "malformed" else b'{"error": {"message": "engine died", "code": 500}}'
        out.append(framed(self.server.dressed(event(data))))
        out.append(framed(self.server.dressed(event(b"[DONE]"))) + b"0\r\n\r\n")
        self._end()
        self._write(b"".join(out))

    def _write(self, data: bytes, *, close: bool = False) -> None:
        size = self.server.config.piece_bytes or len(data)
        if len(data) > size:
            # One piece each turn of the loop, so that they really arrive apart.
            self.transport.write(data[:size])
            self.server.loop.call_soon(lambda: self._write(data[size:], close=close))
            return
        self.transport.write(data)
        if close:
            self.transport.close()

    def _end(self) -> None:
        assert self._request is not None
        self._request.written_end_s = self.server.clock()
        self._request = None
        self.server.ended()


@asynccontextmanager
async def serve(config: StubConfig | None = None, *, uds: str = "", ssl: Any = None) -> AsyncIterator[StubServer]:
    """A stub in this loop, on a free port or on the Unix socket ``uds``."""
    server = StubServer(config or StubConfig())
    await server.start(uds=uds, ssl=ssl)
    try:
        yield server
    finally:
        server.stop()


class StubProcess:
    """``with StubProcess(config) as stub: stub.url`` -- in a process of its own, gone after it."""

    def __init__(self, config: StubConfig | None = None) -> None:
        flags: list[str] = []
        for name, value in msgspec.to_builtins(config or StubConfig()).items():
            if value is not None:
                flags += [f"--{name.replace('_', '-')}", str(value)]
        here = Path(__file__).parents[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.stub_server", "--port", "0", *flags],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])},
        )
        self.url = ""

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the stub server did not start"
        return self

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    for name in StubConfig.__struct_fields__:
        parser.add_argument(f"--{name.replace('_', '-')}")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    host, port = given.pop("host"), given.pop("port")
    config = msgspec.convert(given, StubConfig, strict=False)

    async def forever() -> None:
        server = StubServer(config, log=False, clock=time.perf_counter)
        await server.start(host, port)
        print(server.url, flush=True)
        await asyncio.Event().wait()

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(forever())


if __name__ == "__main__":
    main()
