"""Engines that die, hang and lie under load: every request hears exactly one end, and the server knows what it has."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import httpx
import psutil
import pytest

from octavo.config import EngineConfig
from octavo.engine.client import ProcessEngineClient
from octavo.engine.supervisor import EngineHooks, Supervision
from octavo.errors import EngineDeadError
from octavo.types import FinishReason, Submission, TokenEvent
from support.engine_client import collect, running, stand_in, submission, until
from support.engine_program import DIE, GARBAGE, HANG, RAISE
from support.server_process import ServerProcess

NUM_REQUESTS = 48
LOAD = EngineConfig(fake_step_ms=2, max_num_running=16)  # so that two thirds wait and one third runs
IMPATIENT = Supervision(hang_timeout_s=0.8, max_restarts=3)
PATIENT = Supervision(hang_timeout_s=10.0, max_restarts=3)  # where hanging is not the point


class Load:
    """Requests that would run for minutes, and what they heard."""

    def __init__(self, client: ProcessEngineClient, num_requests: int = NUM_REQUESTS) -> None:
        self.client = client
        self.tasks: list[asyncio.Task[list[TokenEvent]]] = []
        for _ in range(num_requests):
            self.add(submission(max_tokens=3000))

    def add(self, request: Submission) -> None:
        self.tasks.append(asyncio.create_task(collect(self.client, request)))

    async def under_way(self) -> None:
        num_running = min(len(self.tasks), LOAD.max_num_running)
        await until(lambda: self.client.stats.num_running == num_running)

    async def ends(self) -> list[TokenEvent]:
        """Each request's terminal event; AssertionError if one has several or none."""
        heard = await asyncio.wait_for(asyncio.gather(*self.tasks), 20.0)
        for events in heard:
            assert [event.finish_reason is None for event in events] == [True] * (len(events) - 1) + [False]
        return [events[-1] for events in heard]


async def assert_recovers(client: ProcessEngineClient, old_pid: int | None) -> None:
    await until(lambda: client.unhealthy_reason() is None)
    assert client.engine_pid != old_pid
    assert old_pid is None or not psutil.pid_exists(old_pid)
    assert (await collect(client, submission()))[-1].finish_reason is FinishReason.LENGTH
    assert client.num_pending == 0


async def test_kill_9_under_load():
    num_restarts: list[int] = []
    hooks = EngineHooks(on_restart=lambda: num_restarts.append(1))
    async with running(stand_in(config=LOAD, limits=PATIENT, hooks=hooks)) as client:
        for round_ in range(2):
            load, pid = Load(client), client.engine_pid
            await load.under_way()
            os.kill(pid, signal.SIGKILL)
            for end in await load.ends():
                assert end.finish_reason is FinishReason.ERROR
                assert "killed by SIGKILL" in str(end.error)
                assert "sending the request again in a few seconds may help" in str(end.error)
            assert client.num_pending == 0
            await assert_recovers(client, pid)
            assert len(num_restarts) == round_ + 1


async def test_requests_are_refused_while_there_is_no_engine():
    async with running(stand_in(config=LOAD, limits=PATIENT)) as client:
        os.kill(client.engine_pid, signal.SIGKILL)
        await until(client.unhealthy_reason)
        with pytest.raises(EngineDeadError) as caught:
            await collect(client, submission())
        assert caught.value.retryable
        assert caught.value.status == 503
        await assert_recovers(client, None)


async def test_a_stopped_engine_is_hung_and_replaced():
    async with running(stand_in(config=LOAD, limits=IMPATIENT)) as client:
        load, pid = Load(client), client.engine_pid
        await load.under_way()
        os.kill(pid, signal.SIGSTOP)
        await until(client.unhealthy_reason)
        assert "finished no step" in str(client.unhealthy_reason())
        for end in await load.ends():
            assert end.finish_reason is FinishReason.ERROR
            assert "finished no step" in str(end.error)
        await assert_recovers(client, pid)


async def test_a_short_stop_is_forgiven():
    async with running(stand_in(config=LOAD, limits=Supervision(hang_timeout_s=5.0))) as client:
        request, pid = asyncio.create_task(collect(client, submission(max_tokens=60))), client.engine_pid
        await until(lambda: client.stats.num_running)
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.5)
        os.kill(pid, signal.SIGCONT)
        assert (await request)[-1].finish_reason is FinishReason.LENGTH
        assert client.engine_pid == pid


async def test_an_idle_stopped_engine_is_found_by_the_first_request():
    async with running(stand_in(config=LOAD, limits=IMPATIENT)) as client:
        pid = client.engine_pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        assert client.unhealthy_reason() is None
        assert (await collect(client, submission()))[-1].finish_reason is FinishReason.ERROR
        await assert_recovers(client, pid)


@pytest.mark.parametrize(
    ("first_token", "words"),
    [
        (RAISE, "RuntimeError: the step was told to fail"),
        (HANG, "finished no step"),
        (DIE, "killed by SIGKILL"),
        (GARBAGE, "a frame claims"),
    ],
)
async def test_a_poisonous_request_ends_all_and_the_next_engine_serves(first_token, words):
    limits = IMPATIENT if first_token == HANG else PATIENT
    async with running(stand_in(config=LOAD, limits=limits)) as client:
        load, pid = Load(client, num_requests=8), client.engine_pid
        await load.under_way()
        load.add(submission(first_token))
        for end in await load.ends():
            assert end.finish_reason is FinishReason.ERROR
            assert words in str(end.error)
        await assert_recovers(client, pid)


async def test_clients_that_leave_while_the_engine_dies_leave_nothing_behind():
    async with running(stand_in(config=LOAD, limits=IMPATIENT)) as client:
        load, pid = Load(client), client.engine_pid
        await load.under_way()
        os.kill(pid, signal.SIGSTOP)
        for task in load.tasks:
            task.cancel()
        await asyncio.gather(*load.tasks, return_exceptions=True)
        assert client.num_pending == NUM_REQUESTS  # the engine owes its word for each
        await until(lambda: client.num_pending == 0)
        await assert_recovers(client, pid)


async def test_repeated_deaths_are_final():
    limits = Supervision(hang_timeout_s=5.0, max_restarts=2, restart_window_s=60.0)
    async with running(stand_in(config=LOAD, limits=limits)) as client:
        for _ in range(3):
            await until(lambda: client.engine_pid)
            os.kill(client.engine_pid, signal.SIGKILL)
            await until(client.unhealthy_reason)
        await asyncio.wait_for(client.failed.wait(), 10.0)
        assert "went down 3 times within 60 s and is not started again" in str(client.failed_reason)
        assert client.unhealthy_reason() == client.failed_reason
        with pytest.raises(EngineDeadError, match="does not help"):
            await collect(client, submission())


async def test_an_engine_that_does_not_come_back_is_final_too(tmp_path):
    limits = Supervision(hang_timeout_s=5.0, max_restarts=2)
    async with running(stand_in("starts-once", limits=limits, path=str(tmp_path / "mark"))) as client:
        os.kill(client.engine_pid, signal.SIGKILL)
        await asyncio.wait_for(client.failed.wait(), 10.0)
        assert "the engine did not start again: it started once, not again" in str(client.failed_reason)


async def test_closing_while_the_engine_restarts_leaves_no_process():
    client = stand_in(config=LOAD, limits=PATIENT)
    await client.start()
    os.kill(client.engine_pid, signal.SIGKILL)
    await until(client.unhealthy_reason)
    await asyncio.sleep(0.12)  # past the backoff: the next engine is loading
    await client.close()
    assert psutil.Process().children() == []
    assert not client.failed.is_set()


SERVER = ("--executor", "fake", "--fake-step-ms", "5")


class HttpLoad:
    """Completions that would run for a while, each in a thread."""

    def __init__(self, server: ServerProcess, num_requests: int = 6) -> None:
        self.answers: list[httpx.Response | httpx.HTTPError] = []
        self._url = server.url + "/v1/completions"
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(num_requests)]
        for thread in self._threads:
            thread.start()
        server.until(lambda: server.metric("octavo_num_requests_running") == num_requests, 10)

    def _ask(self) -> None:
        body = {"prompt": "a", "max_tokens": 4000, "ignore_eos": True}
        try:
            self.answers.append(httpx.post(self._url, json=body, timeout=30))
        except httpx.HTTPError as error:
            self.answers.append(error)

    def end(self) -> list[httpx.Response | httpx.HTTPError]:
        for thread in self._threads:
            thread.join(20)
        assert len(self.answers) == len(self._threads)
        return self.answers


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # nobody reaps in a container without init
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("state", ["idle", "busy", "stopped"])
def test_the_engine_does_not_outlive_a_killed_server(state: str) -> None:
    with ServerProcess(*SERVER) as server:
        pid = server.engine_pid()
        load = HttpLoad(server) if state == "busy" else None
        if state == "stopped":
            os.kill(pid, signal.SIGSTOP)
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 30.0
        while not gone(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert gone(pid)
        if load is not None:
            assert all(isinstance(answer, httpx.HTTPError) for answer in load.end())


def test_health_tells_of_a_stopped_engine_and_of_its_replacement() -> None:
    with ServerProcess(*SERVER, "--hang-timeout-s", "1") as server:
        assert server.get("/health").status_code == 200
        load, pid = HttpLoad(server), server.engine_pid()
        os.kill(pid, signal.SIGSTOP)
        server.until(lambda: server.get("/health").status_code == 503, 10)
        for answer in load.end():
            assert isinstance(answer, httpx.Response)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "engine_dead"
        server.until(lambda: server.get("/health").status_code == 200, 20)
        assert gone(pid)
        assert server.metric("octavo_engine_restarts_total") == 1
        answer = httpx.post(server.url + "/v1/completions", json={"prompt": "a", "max_tokens": 3})
        assert answer.status_code == 200


def test_health_does_not_flap_under_load() -> None:
    with ServerProcess(*SERVER, "--hang-timeout-s", "1") as server:
        load = HttpLoad(server, num_requests=12)
        pid = server.engine_pid()
        statuses = []
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            statuses.append(server.get("/health").status_code)
        assert set(statuses) == {200}
        assert server.engine_pid() == pid
        assert server.metric("octavo_num_requests_running") == 12
        server.process.kill()
        load.end()
