"""The engine in a process of its own, from the server's side, while nothing worse happens than ordinary life."""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.config import EngineConfig, ServerConfig
from octavo.engine.supervisor import EngineHooks, Supervision
from octavo.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    InvalidRequestError,
    LoadingError,
    ShuttingDownError,
    UnsupportedModelError,
)
from octavo.types import EngineStats, FinishReason
from support.engine_client import collect, running, stand_in, submission, until
from support.engine_visits import SMALL, check_ends, visit, visits


async def test_requests_run_side_by_side_and_everything_known_arrives():
    reports: list[EngineStats] = []
    hooks = EngineHooks(on_report=reports.append)
    async with running(stand_in(hooks=hooks)) as client:
        assert client.info.model == "stand-in"
        assert client.reasons == {"num_blocks": "because the test says so"}
        answers = await asyncio.gather(*(collect(client, submission(max_tokens=n)) for n in range(1, 40)))
        assert [len(events) for events in answers] == list(range(1, 40))
        assert {events[-1].finish_reason for events in answers} == {FinishReason.LENGTH}
        assert client.num_pending == 0
        assert client.unhealthy_reason() is None
        assert reports[-1] == client.stats
        assert client.stats.total_prompt_tokens == 3 * 39


async def test_the_same_tokens_come_out_as_without_a_process():
    from support.engine_program import make_engine

    request = submission(max_tokens=12, seed=5)
    twin, expected = make_engine(EngineConfig()), []
    twin.submit(request)
    while twin.has_work:
        expected += [event.token_ids for event in twin.step().events]
    async with running(stand_in()) as client:
        assert [event.token_ids for event in await collect(client, request)] == expected


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("unsupported", UnsupportedModelError, "architecture 'abacus' is unknown; known: llama"),
        ("buggy", EngineError, "KeyError: 'a bug while loading'"),
        ("dies", EngineError, "killed by SIGKILL.* while it was starting"),
    ],
)
async def test_a_start_error_is_raised_as_itself(model, kind, words):
    client = stand_in(model)
    with pytest.raises(kind, match=words) as caught:
        await client.start()
    assert type(caught.value) is kind
    assert psutil.Process().children() == []
    with pytest.raises(LoadingError):
        await collect(client, submission())
    await client.close()


async def test_a_start_that_takes_too_long_is_ended():
    client = stand_in("slow", limits=Supervision(start_timeout_s=0.4))
    with pytest.raises(EngineError, match=r"not ready after 0\.4 s"):
        await client.start()
    assert psutil.Process().children() == []


@pytest.mark.parametrize("num_turns", [0, 1, 2, 3, 5, 20])
async def test_a_cancelled_start_leaves_no_process(num_turns):
    client = stand_in("slow")
    starting = asyncio.create_task(client.start())
    await until(lambda: psutil.Process().children())
    for _ in range(num_turns):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert psutil.Process().children() == []


async def test_an_engine_program_that_is_not_there_is_an_error_at_start():
    from octavo.engine.client import ProcessEngineClient
    from octavo.engine.messages import ModelSource, Start

    client = ProcessEngineClient(
        Start(config=EngineConfig(), model=ModelSource(name="x")), command=("/no/such/program",)
    )
    with pytest.raises(EngineError, match="cannot start the engine process /no/such/program"):
        await client.start()


async def test_refusals_are_raised_and_harm_nobody():
    async with running(stand_in()) as client:
        for bad, kind in [
            (submission(num_prompt=5000), ContextLengthError),
            (submission(max_tokens="many"), InvalidRequestError),
            (submission(seed=2**70), InvalidRequestError),
        ]:
            with pytest.raises(kind):
                await collect(client, bad)
        assert client.num_pending == 0
        assert len(await collect(client, submission())) == 4


async def test_an_id_in_use_is_refused_without_touching_its_owner():
    async with running(stand_in(config=EngineConfig(fake_step_ms=2))) as client:
        owner = asyncio.create_task(collect(client, submission(request_id="mine", max_tokens=20)))
        await until(lambda: client.num_pending)
        with pytest.raises(InvalidRequestError, match="'mine' is in use"):
            await collect(client, submission(request_id="mine"))
        assert len(await owner) == 20
        assert len(await collect(client, submission(request_id="mine"))) == 4  # free again


async def test_a_reader_that_leaves_frees_the_engine_within_a_few_steps():
    async with running(stand_in(config=EngineConfig(fake_step_ms=2))) as client:
        for leave in ("close", "cancel"):
            request = submission(num_prompt=64, max_tokens=4000)
            stream = client.generate(request)
            await anext(stream)
            assert client.stats.num_blocks_used > 0
            if leave == "close":
                await stream.aclose()
            else:
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            left_at_step = client.stats.total_steps
            await until(lambda: client.num_pending == 0)
            assert client.stats.num_blocks_used == 0
            assert client.stats.total_steps - left_at_step <= 200  # a few; more on a busy machine, never all 4000


@settings(max_examples=6, deadline=None)
@given(st.lists(st.lists(visits, min_size=1, max_size=14), min_size=4, max_size=4))
def test_every_request_ends_exactly_once(rounds):
    async def scenario() -> None:
        async with running(stand_in(config=SMALL)) as client:
            for plans in rounds:
                heard = await asyncio.gather(*(visit(client, plan) for plan in plans))
                for plan, events in zip(plans, heard, strict=True):
                    check_ends(plan, events, {FinishReason.LENGTH})
                await until(lambda: client.num_pending == 0)
                assert client.stats.num_blocks_used == 0

    asyncio.run(scenario())


async def test_drain_lets_running_requests_finish_and_takes_no_new_ones():
    async with running(stand_in(config=EngineConfig(fake_step_ms=2))) as client:
        request = asyncio.create_task(collect(client, submission(max_tokens=50)))
        await until(lambda: client.num_pending)
        draining = asyncio.create_task(client.drain(30.0))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDownError):
            await collect(client, submission())
        await draining
        assert (await request)[-1].finish_reason is FinishReason.LENGTH


async def test_drain_ends_what_does_not_finish_in_time():
    async with running(stand_in(config=EngineConfig(fake_step_ms=2))) as client:
        requests = [asyncio.create_task(collect(client, submission(max_tokens=4000))) for _ in range(3)]
        await until(lambda: client.stats.num_running == 3)
        await client.drain(0.1)
        for request in requests:
            assert [event.finish_reason for event in await request][-1] is FinishReason.ABORT
        await until(lambda: client.num_pending == 0)
        assert client.stats.num_blocks_used == 0


async def test_close_ends_the_process_and_every_request_and_can_be_repeated():
    client = stand_in(config=EngineConfig(fake_step_ms=2))
    await client.start()
    request = asyncio.create_task(collect(client, submission(max_tokens=4000)))
    await until(lambda: client.num_pending)
    await client.close()
    assert psutil.Process().children() == []
    end = (await request)[-1]
    assert end.finish_reason is FinishReason.ERROR
    assert "shutting down" in str(end.error)
    await client.close()
    assert not client.failed.is_set()
    assert client.engine_pid is None
    with pytest.raises(EngineDeadError):
        await collect(client, submission())


async def test_health_is_not_judged_while_idle():
    async with running(stand_in(limits=Supervision(hang_timeout_s=0.2))) as client:
        pid = client.engine_pid
        for _ in range(3):
            await asyncio.sleep(0.25)
            assert client.unhealthy_reason() is None
            assert len(await collect(client, submission())) == 4
        assert client.engine_pid == pid


async def test_a_blocked_event_loop_is_not_the_engines_fault():
    limits = Supervision(hang_timeout_s=0.8, max_restarts=0)
    async with running(stand_in(config=EngineConfig(fake_step_ms=1), limits=limits)) as client:
        request = asyncio.create_task(collect(client, submission(max_tokens=1500)))
        await until(lambda: client.num_pending)
        for _ in range(2):
            time.sleep(1.0)  # the fault under test
            assert client.unhealthy_reason() is None
            await asyncio.sleep(0.05)
        assert (await request)[-1].finish_reason is FinishReason.LENGTH
        assert not client.failed.is_set()


def test_it_runs_on_uvloop_as_well():
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> None:
        async with running(stand_in()) as client:
            answers = await asyncio.gather(*(collect(client, submission(max_tokens=20)) for _ in range(10)))
            assert [len(events) for events in answers] == [20] * 10

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_supervision_comes_from_the_servers_settings():
    config = ServerConfig(hang_timeout_s=1.5, start_timeout_s=2.5, max_restarts=7, restart_window_s=9.0)
    assert Supervision.of(config) == Supervision(1.5, 2.5, 7, 9.0)
    assert Supervision.of(ServerConfig()) == Supervision()
