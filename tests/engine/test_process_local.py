"""The engine in a thread: the same promises as in a process, under random interleavings of submit, leave and close."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.config import EngineConfig
from octavo.engine.local_client import LocalEngineClient
from octavo.errors import ContextLengthError, EngineDeadError, InvalidRequestError, ShuttingDownError
from octavo.types import FinishReason, TokenEvent
from support.engine_client import collect, submission, until
from support.engine_program import HANG, RAISE, make_engine
from support.engine_visits import SMALL, check_ends, visit, visits


@settings(max_examples=40, deadline=None)
@given(st.lists(visits, min_size=1, max_size=14))
def test_every_request_ends_exactly_once(plans):
    async def scenario() -> None:
        engine = make_engine(SMALL)
        client = LocalEngineClient(engine)
        heard = await asyncio.gather(*(visit(client, plan) for plan in plans))
        for plan, events in zip(plans, heard, strict=True):
            check_ends(plan, events, {FinishReason.LENGTH})
        await until(lambda: client.num_pending == 0)
        await client.close()
        assert not engine.has_work
        assert client.stats.num_blocks_used == 0

    asyncio.run(scenario())


@settings(max_examples=25, deadline=None)
@given(st.lists(visits, min_size=1, max_size=14), st.integers(0, 20))
def test_every_request_ends_exactly_once_when_the_client_closes_amid_them(plans, close_at):
    async def scenario() -> None:
        client = LocalEngineClient(make_engine(SMALL))
        tasks = [asyncio.create_task(visit(client, plan)) for plan in plans]
        for _ in range(close_at):
            await asyncio.sleep(0)
        await client.close()
        for plan, result in zip(plans, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
            if isinstance(result, BaseException):
                assert isinstance(result, EngineDeadError)  # it came after the end
            else:
                check_ends(plan, result, {FinishReason.LENGTH, FinishReason.ERROR})
        assert client.num_pending == 0

    asyncio.run(scenario())


async def test_tokens_are_the_engines_and_stats_arrive():
    engine, twin = make_engine(SMALL), make_engine(SMALL)
    client = LocalEngineClient(engine)
    request = submission(max_tokens=9, temperature=0.0)
    twin.submit(request)
    expected: list[int] = []
    while twin.has_work:
        expected += [token for event in twin.step().events for token in event.token_ids]
    heard = [token for event in await collect(client, request) for token in event.token_ids]
    assert heard == expected
    assert client.stats.total_steps == 9
    assert client.info.model == "stand-in"
    await client.close()


async def test_refusals_are_raised_and_the_engine_goes_on():
    client = LocalEngineClient(make_engine(SMALL))
    with pytest.raises(ContextLengthError):
        await collect(client, submission(num_prompt=500))
    with pytest.raises(InvalidRequestError, match="9999"):
        await collect(client, submission(first_token=9999))
    assert (await collect(client, submission()))[-1].finish_reason is FinishReason.LENGTH
    await client.close()


async def test_a_step_that_raises_ends_every_request_and_the_engine():
    client = LocalEngineClient(make_engine(EngineConfig(fake_step_ms=2)))
    bystander = asyncio.create_task(collect(client, submission(max_tokens=2000)))
    await until(lambda: client.stats.num_running == 1)
    culprit = await collect(client, submission(RAISE))
    for events in (culprit, await bystander):
        assert events[-1].finish_reason is FinishReason.ERROR
        assert "RuntimeError: the step was told to fail" in str(events[-1].error)
    assert "the step was told to fail" in str(client.unhealthy_reason())
    with pytest.raises(EngineDeadError):
        await collect(client, submission())
    await client.close()


async def test_silence_is_unhealthy_only_while_work_is_pending(monkeypatch):
    client = LocalEngineClient(make_engine(SMALL), hang_timeout_s=0.1)
    await asyncio.sleep(0.2)
    assert client.unhealthy_reason() is None
    monkeypatch.setattr("support.engine_program.time.sleep", lambda seconds: threading.Event().wait(0.5))
    waiting = asyncio.create_task(collect(client, submission(HANG)))
    await asyncio.sleep(0.05)
    assert client.unhealthy_reason() is None
    await until(client.unhealthy_reason)
    assert "finished no step for" in str(client.unhealthy_reason())
    await waiting
    assert client.unhealthy_reason() is None
    await client.close()


async def test_drain_refuses_new_requests_and_ends_the_running_ones():
    client = LocalEngineClient(make_engine(EngineConfig(fake_step_ms=2)))
    running = asyncio.create_task(collect(client, submission(max_tokens=3000)))
    await until(lambda: client.stats.num_running == 1)
    draining = asyncio.create_task(client.drain(0.05))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDownError):
        await collect(client, submission())
    await draining
    assert (await running)[-1].finish_reason is FinishReason.ABORT
    await until(lambda: client.num_pending == 0)
    assert client.stats.num_blocks_used == 0
    await client.close()


def test_one_client_serves_one_event_loop_after_another():
    client = LocalEngineClient(make_engine(EngineConfig(fake_step_ms=1)))

    async def leave_in_a_hurry() -> None:
        stream = client.generate(submission(request_id="same", max_tokens=500))
        await anext(stream)  # and the loop ends before the engine can confirm

    async def stay() -> list[TokenEvent]:
        return await collect(client, submission(max_tokens=5))

    asyncio.run(leave_in_a_hurry())
    assert len(asyncio.run(stay())) == 5
    asyncio.run(client.close())
