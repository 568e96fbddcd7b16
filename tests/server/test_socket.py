"""The listening socket: binding errors, request heads that are too large, have too many headers or never come."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn

from octavo.errors import ConfigError
from octavo.server.http import protocol
from octavo.server.http.listen import bind, url
from octavo.server.http.protocol import MAX_HEAD_BYTES, MAX_HEADERS, BoundedHttpProtocol


async def _app(scope: object, receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """A server with our protocol on a free port."""
    config = uvicorn.Config(_app, http=BoundedHttpProtocol, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with bind("127.0.0.1", 0) as listener:
        task = asyncio.create_task(server._serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def talk(port: int, data: bytes) -> bytes:
    """Send ``data``; everything that comes back until the server closes or is silent for 0.3 s."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while part := await asyncio.wait_for(reader.read(65536), 0.3):
            answer += part
    writer.close()
    return answer


def request(*headers: bytes, path: bytes = b"/") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n"


async def test_heads_up_to_the_bounds_pass_and_beyond_are_refused() -> None:
    async with serving() as port:
        for good in (
            request(),
            request(b"a: " + b"x" * (MAX_HEAD_BYTES - 100)),
            request(*[b"a: b"] * (MAX_HEADERS - 1)),
            request() + request(),
        ):
            assert (await talk(port, good)).count(b"200 OK") == good.count(b"GET")
        for bad in (
            request(b"a: " + b"x" * MAX_HEAD_BYTES),
            request(*[b"a: " + b"x" * 1000] * 70),
            request(*[b"a: b"] * MAX_HEADERS),
            request(path=b"/" + b"x" * MAX_HEAD_BYTES),
        ):
            assert (await talk(port, bad)).startswith(b"HTTP/1.1 400")


async def test_each_request_of_a_kept_connection_has_the_whole_bound() -> None:
    almost = request(b"a: " + b"x" * (MAX_HEAD_BYTES - 100))
    async with serving() as port:
        assert (await talk(port, almost * 3)).count(b"200 OK") == 3


async def test_a_head_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\na: ")
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request())
        assert b"200 OK" in await reader.readuntil(b"ok")
        await asyncio.sleep(0.3)
        writer.write(request())  # the timer is for the first head alone
        assert b"200 OK" in await reader.readuntil(b"ok")
        writer.close()


def test_binding_says_what_is_wrong() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert url(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use.*--port"):
            bind("127.0.0.1", port)
    with pytest.raises(ConfigError, match="host 'no such host'"):
        bind("no such host", 0)
    with pytest.raises(ConfigError, match="cannot listen on 192"):
        bind("192.0.2.1", 0)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    try:
        listener = bind("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 on this machine")
    with listener:
        assert url(listener).startswith("http://[::1]:")
        assert listener.family == socket.AF_INET6
