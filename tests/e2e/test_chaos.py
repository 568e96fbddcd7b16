"""Engines that die, hang and lie under load: every request hears exactly one end, and the server knows what it has."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psutil
import pytest

from octavo.config import EngineConfig
from octavo.engine.client import ProcessEngineClient
from octavo.engine.supervisor import EngineHooks, Supervision
from octavo.errors import EngineDeadError
from octavo.types import FinishReason, Submission, TokenEvent
from support.engine_client import collect, running, stand_in, submission, until
from support.engine_program import DIE, GARBAGE, HANG, RAISE

NUM_REQUESTS = 48
LOAD = EngineConfig(fake_step_ms=2, max_num_running=16)  # so that two thirds wait and one third runs
IMPATIENT = Supervision(hang_timeout_s=0.6, max_restarts=3)


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
    async with running(stand_in(config=LOAD, limits=IMPATIENT, hooks=hooks)) as client:
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
    async with running(stand_in(config=LOAD, limits=IMPATIENT)) as client:
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
        stopped = time.monotonic()
        await until(client.unhealthy_reason)
        assert 0.4 < time.monotonic() - stopped < 5.0
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
    async with running(stand_in(config=LOAD, limits=IMPATIENT)) as client:
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
    client = stand_in(config=LOAD, limits=IMPATIENT)
    await client.start()
    os.kill(client.engine_pid, signal.SIGKILL)
    await until(client.unhealthy_reason)
    await asyncio.sleep(0.12)  # past the backoff: the next engine is loading
    await client.close()
    assert psutil.Process().children() == []
    assert not client.failed.is_set()
