"""Clients as hypothesis imagines them: when they come, what they want, when they leave; and what each must have heard."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import strategies as st

from octavo.config import EngineConfig
from octavo.types import EngineClient, FinishReason, TokenEvent
from support.engine_client import submission

SMALL = EngineConfig(num_blocks=24, block_size=4, max_num_running=4, max_step_tokens=16)


@dataclass(frozen=True)
class Visit:
    """One client: when it comes (in turns of the event loop), what it wants, after how many events it leaves."""

    wait: int
    num_prompt: int
    num_tokens: int
    leave_after: int | None  # None: stays to the end; 0: cancelled while it waits


visits = st.builds(
    Visit,
    wait=st.integers(0, 30),
    num_prompt=st.integers(1, 40),
    num_tokens=st.integers(1, 40),
    leave_after=st.none() | st.integers(0, 12),
)


async def visit(client: EngineClient, plan: Visit) -> list[TokenEvent]:
    for _ in range(plan.wait):
        await asyncio.sleep(0)
    stream = client.generate(submission(num_prompt=plan.num_prompt, max_tokens=plan.num_tokens))
    heard: list[TokenEvent] = []
    if plan.leave_after == 0:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return heard
    async for event in stream:
        heard.append(event)
        if len(heard) == plan.leave_after:
            await stream.aclose()
            break
    return heard


def check_ends(plan: Visit, heard: list[TokenEvent], allowed: set[FinishReason]) -> None:
    ends = [event.finish_reason for event in heard if event.finish_reason is not None]
    assert len(ends) <= 1
    assert not ends or heard[-1].finish_reason is not None, "an event came after the end"
    if plan.leave_after is None:
        assert len(ends) == 1
        assert ends[0] in allowed
        if ends[0] is FinishReason.LENGTH:
            assert sum(len(event.token_ids) for event in heard) == plan.num_tokens
