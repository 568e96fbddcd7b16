"""Submissions, readers and clients over the stand-in engine, for the tests of the process boundary."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from octavo.config import EngineConfig
from octavo.engine.client import ProcessEngineClient
from octavo.engine.messages import ModelSource, Start
from octavo.engine.supervisor import EngineHooks, Supervision
from octavo.types import EngineClient, SamplingParams, Submission, TokenEvent

STAND_IN_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("engine_program.py")))
_ids = (f"request-{i}" for i in itertools.count())


def submission(first_token: int = 1, *, num_prompt: int = 3, request_id: str = "", **params: object) -> Submission:
    return Submission(
        request_id=request_id or next(_ids),
        prompt_token_ids=[first_token] + [2] * (num_prompt - 1),
        params=SamplingParams(**{"max_tokens": 4, **params}),
        arrival_s=time.monotonic(),
    )


async def collect(client: EngineClient, request: Submission) -> list[TokenEvent]:
    return [event async for event in client.generate(request)]


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until it holds; AssertionError if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


def stand_in(
    name: str = "stand-in",
    config: EngineConfig | None = None,
    limits: Supervision | None = None,
    hooks: EngineHooks | None = None,
    path: str | None = None,
) -> ProcessEngineClient:
    start = Start(config=config or EngineConfig(), model=ModelSource(name=name, path=path), eos_token_ids=())
    return ProcessEngineClient(start, limits, hooks, STAND_IN_COMMAND)


@asynccontextmanager
async def running(client: ProcessEngineClient) -> AsyncIterator[ProcessEngineClient]:
    await client.start()
    try:
        yield client
    finally:
        await client.close()
