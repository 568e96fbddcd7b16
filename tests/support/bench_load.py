"""Load plans and runs for the tests of the load generator, in virtual time against a stub in the same loop."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from octavo.bench.client.options import ClientOptions
from octavo.bench.client.progress import Observer
from octavo.bench.client.target import Target
from octavo.bench.run import Interrupts, RunOutcome, run_plan
from octavo.bench.types import BenchRequest, LoadPlan
from support.stub_server import StubConfig, StubServer, serve
from support.virtual_time import VirtualTimeLoop, run_virtual


def requests(count: int, **fields: Any) -> list[BenchRequest]:
    prompt = {} if {"text", "token_ids", "messages"} & fields.keys() else {"text": "hello"}
    return [BenchRequest(index=i, **prompt, **{"max_tokens": 4, **fields}) for i in range(count)]


def open_plan(send_s: list[float | None], requests_: list[BenchRequest] | None = None, **fields: Any) -> LoadPlan:
    made = requests(len(send_s)) if requests_ is None else requests_
    return LoadPlan(workload="test", arrivals="test", seed=0, requests=made, send_s=send_s, **fields)


def closed_plan(users: int, requests_: list[BenchRequest], **fields: Any) -> LoadPlan:
    return open_plan([None] * len(requests_), requests_, concurrency=users, **fields)


def virtual_run(
    plan: LoadPlan,
    config: StubConfig | None = None,
    options: ClientOptions | None = None,
    *,
    observer: Observer | None = None,
    target: dict[str, Any] | None = None,
    beside: Callable[[StubServer], Awaitable[None]] | None = None,
    interrupts: Interrupts | None = None,
) -> tuple[RunOutcome, StubServer]:
    """One run, start to end, in no time. ``beside`` runs along with it. The server's log comes back with the outcome; its times
    are those of the records plus ``server.zero_s``, the arrival of the first request if that was sent at 0."""

    async def run() -> tuple[RunOutcome, StubServer]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        with tempfile.TemporaryDirectory() as folder:
            async with serve(config, uds=str(Path(folder) / "stub")) as stub:
                where = Target(url=stub.url, uds=stub.uds, **(target or {}))
                # Spinning waits for a clock that moves by itself; this one does not.
                how = msgspec.structs.replace(options or ClientOptions(), spin_s=0.0)
                other = asyncio.ensure_future(beside(stub)) if beside else None
                outcome = await run_plan(plan, where, how, observer, interrupts=interrupts, clock=loop.time)
                if other is not None:
                    await other
                return outcome, stub

    return run_virtual(run())
