"""An engine process that is started before it is known what it loads."""

from __future__ import annotations

import psutil

from octavo.config import EngineConfig
from octavo.engine.client import ProcessEngineClient
from octavo.engine.messages import ModelSource, Start
from octavo.engine.process_handle import Spawned, early_engine, spawn
from support.engine_client import STAND_IN_COMMAND, collect, running, submission


def client_with(early: Spawned) -> ProcessEngineClient:
    start = Start(config=EngineConfig(), model=ModelSource(name="stand-in", path=None))
    return ProcessEngineClient(start, command=STAND_IN_COMMAND, early=early)


async def test_the_first_engine_runs_in_it_and_it_ends_with_the_client():
    early = spawn(STAND_IN_COMMAND)
    async with running(client_with(early)) as client:
        assert client.engine_pid == early.process.pid
        assert len(await collect(client, submission(max_tokens=3))) == 3
    assert not psutil.pid_exists(early.process.pid)
    early.discard()  # does nothing any more


async def test_one_that_died_meanwhile_is_replaced():
    early = spawn(STAND_IN_COMMAND)
    early.process.kill()
    early.process.wait()
    async with running(client_with(early)) as client:
        assert client.engine_pid != early.process.pid
        assert len(await collect(client, submission(max_tokens=3))) == 3
    early.discard()


def test_one_that_nobody_needs_is_gone_after_discard():
    early = spawn(STAND_IN_COMMAND)
    early.discard()
    assert not psutil.pid_exists(early.process.pid)
    early.discard()


def test_the_engine_of_a_server_starts_at_once_and_ends_with_its_context():
    with early_engine("native") as early:
        assert early is not None and early.process.poll() is None
    assert not psutil.pid_exists(early.process.pid)
    with early_engine("fake") as early:
        assert early is None
