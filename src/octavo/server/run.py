"""Server process of ``octavo serve``: bind, load while probes are answered, serve, drain, exit with the right code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import uvicorn

from octavo.config import EngineConfig, ServerConfig
from octavo.engine.client import ProcessEngineClient
from octavo.engine.messages import ModelSource, Start
from octavo.engine.process_handle import Spawned
from octavo.engine.supervisor import EngineHooks, Supervision
from octavo.errors import OctavoError
from octavo.models.registry import FAKE, find_model
from octavo.observability.events import EngineRestarted, StepFinished
from octavo.server.app import build_app
from octavo.server.http.keys import ApiKeys, load_api_keys
from octavo.server.http.listen import bind, url
from octavo.server.http.protocol import BoundedHttpProtocol
from octavo.server.state import Phase, ServerState
from octavo.text.tokenizer import FakeTokenizer, Tokenizer, load_tokenizer
from octavo.types import EngineInfo

_log = logging.getLogger(__name__)

T = TypeVar("T")

EXIT_OK = 0
EXIT_ENGINE_FAILED = 70  # the engine went down too often
KEEP_ALIVE_S = 65.0  # longer than the usual idle time of a client's pool or a proxy, so that they close first
CLOSE_TIMEOUT_S = 5.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ServerReady:
    """What can be said to the user once requests are served."""

    url: str
    model: str
    info: EngineInfo
    has_chat_template: bool


def _print_ready(ready: ServerReady) -> None:
    print(f"ready: {ready.model} at {ready.url}", flush=True)


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What to serve. ``find_model`` turns the user's name into files (and may fetch them); it runs in a thread."""

    engine: EngineConfig
    server: ServerConfig
    model: str
    find_model: Callable[[str], ModelSource]
    announce: Callable[[str], None] = print
    ready: Callable[[ServerReady], None] = _print_ready
    early: Spawned | None = None  # an engine process that was started before anything else


def model_source(name: str) -> ModelSource:
    """From the model registry, fetched if need be, without a word about progress. Raises ``ModelError``."""
    found = find_model(name)
    return ModelSource(name=found.name, path=None if found.format == FAKE else str(found.path))


def run_server(plan: ServePlan) -> int:
    """Serve until a signal or until the engine is lost; returns the exit code.

    Raises ``ConfigError`` (port, key file) before anything is loaded, and the engine's or the model's own error if it
    cannot be loaded.
    """
    keys = load_api_keys(plan.server.api_key_file)
    listener = bind(plan.server.host, plan.server.port)
    with listener, asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_Life(plan, keys, listener).run())


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not available on every platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _HttpServer(uvicorn.Server):
    """uvicorn without its own signal handling: when to exit is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Life:
    """One run of the server, from the bound socket to the exit code."""

    def __init__(self, plan: ServePlan, keys: ApiKeys, listener: socket.socket) -> None:
        self._plan = plan
        self._listener = listener
        self._state = ServerState(plan.server, plan.model, plan.engine.max_num_running)
        self._http = _HttpServer(
            uvicorn.Config(
                build_app(self._state, keys),
                http=BoundedHttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(KEEP_ALIVE_S),
                timeout_graceful_shutdown=int(CLOSE_TIMEOUT_S),
            )
        )
        self._client: ProcessEngineClient | None = None
        self._signals: list[int] = []
        self._first_signal = asyncio.Event()
        self._second_signal = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        http = asyncio.create_task(self._http.serve(sockets=[self._listener]), name="http")
        self._plan.announce(f"octavo listens on {url(self._listener)} and loads {self._plan.model}")
        try:
            return await self._serve(http)
        finally:
            self._http.should_exit = True
            await asyncio.gather(http, return_exceptions=True)
            if self._client is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._client.close(), CLOSE_TIMEOUT_S)

    async def _serve(self, http: asyncio.Task[None]) -> int:
        stop = asyncio.create_task(self._first_signal.wait())
        loading = asyncio.create_task(self._load(), name="load")
        await asyncio.wait({stop, loading, http}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            await self._exit_while_loading(loading)
            return _exit_code_of(http)
        client = loading.result()
        failed = asyncio.create_task(client.failed.wait())
        await asyncio.wait({stop, failed, http}, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        if client.failed.is_set():
            reason = client.failed_reason or "unknown"
            self._state.fail(reason)
            _log.error("the engine is lost: %s", reason)
            await self._until_responded(deadline_s=time.monotonic() + 1.0)  # every client hears the terminal error
            return EXIT_ENGINE_FAILED
        return await self._drain() if not http.done() else _exit_code_of(http)

    async def _load(self) -> ProcessEngineClient:
        """Model files, tokenizer, engine; the first two in a thread, so that probes are answered meanwhile."""
        plan, state = self._plan, self._state
        source = await _in_thread(lambda: plan.find_model(plan.model))
        tokenizer = await _in_thread(lambda: _tokenizer(source))
        start = Start(config=plan.engine, model=source, eos_token_ids=tuple(sorted(tokenizer.eos_token_ids)))
        publish = state.publish
        hooks = EngineHooks(
            on_report=lambda stats: publish(StepFinished(stats)), on_restart=lambda: publish(EngineRestarted())
        )
        client = ProcessEngineClient(start, Supervision.of(plan.server), hooks, early=plan.early)
        self._client = client
        await client.start()
        if not plan.server.served_model_name:
            state.model_name = source.name
        state.attach(client, tokenizer)
        plan.ready(ServerReady(url(self._listener), state.model_name, client.info, tokenizer.has_chat_template))
        return client

    async def _exit_while_loading(self, loading: asyncio.Task[ProcessEngineClient]) -> None:
        self._state.drain()
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)

    async def _drain(self) -> int:
        """After the first signal: let what runs finish, end the rest, unless a second signal says now."""
        state, grace_s = self._state, self._plan.server.grace_s
        state.drain()
        num_in_flight = state.limiter.num_in_flight
        self._plan.announce(
            f"shutting down: {num_in_flight} requests may finish within {grace_s:g} s; signal again to stop now"
        )
        await self._until_responded(time.monotonic() + grace_s)
        if self._second_signal.is_set():
            return 128 + self._signals[-1]
        if state.guards:
            _log.warning("the grace time is over; %d requests are ended", len(state.guards))
            state.end_all(f"the server shut down and the response was not finished within {grace_s:g} s")
            await self._until_responded(time.monotonic() + 1.0)
        return EXIT_OK

    async def _until_responded(self, deadline_s: float) -> None:
        while self._state.guards and time.monotonic() < deadline_s and not self._second_signal.is_set():
            await asyncio.sleep(_POLL_S)

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        if self._first_signal.is_set():
            self._second_signal.set()
            self._http.force_exit = True
        self._first_signal.set()
        if self._state.phase is not Phase.DRAINING:
            self._state.drain()  # at once: no request slips in before the task above wakes


def _exit_code_of(http: asyncio.Task[None]) -> int:
    """Of a server that exits because it was told to; raises what ended the HTTP side if that was it."""
    if http.done():
        http.result()
        raise OctavoError("the HTTP server ended without being told to")
    return EXIT_OK


async def _in_thread(work: Callable[[], T]) -> T:
    """``work()`` in a daemon thread: unlike ``asyncio.to_thread``'s, a download in it does not delay the exit."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():  # cancelled meanwhile
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(cast("T", value))

    def target() -> None:
        value, error = None, None
        try:
            value = work()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=target, name="load", daemon=True).start()
    return await result


def _tokenizer(source: ModelSource) -> Tokenizer:
    return FakeTokenizer() if source.path is None else load_tokenizer(Path(source.path), name=source.name)
