"""Benchmark of the process boundary: token events per second, and processor time of each side.

256 requests run at once in a fake engine without step time, so scheduler, boundary and readers are all there is. Prints
events per second, the server side's processor time per event (which must leave room for HTTP), and the round trip of one
request of one token through an idle engine.

    python benchmarks/engine_boundary.py [--num-requests 256] [--num-tokens 400]
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time

import psutil

from octavo.config import EngineConfig
from octavo.engine.client import ProcessEngineClient
from octavo.engine.messages import ModelSource, Start
from octavo.types import SamplingParams, Submission

NUM_ROUND_TRIPS = 300


def request(request_id: str, num_tokens: int) -> Submission:
    params = SamplingParams(max_tokens=num_tokens, ignore_eos=True, temperature=0.0)
    return Submission(request_id=request_id, prompt_token_ids=[7] * 32, params=params, arrival_s=time.monotonic())


async def read(client: ProcessEngineClient, submission: Submission) -> int:
    num_events = 0
    async for _ in client.generate(submission):
        num_events += 1
    return num_events


async def round_trips(client: ProcessEngineClient) -> list[float]:
    times = []
    for i in range(NUM_ROUND_TRIPS):
        started_s = time.perf_counter()
        await read(client, request(f"alone-{i}", 1))
        times.append((time.perf_counter() - started_s) * 1e3)
        await asyncio.sleep(0.001)  # the engine goes to sleep again
    return times


async def measure(num_requests: int, num_tokens: int) -> None:
    config = EngineConfig(executor="fake", max_num_running=num_requests, num_blocks=num_requests * 64)
    client = ProcessEngineClient(Start(config=config, model=ModelSource(name="fake")))
    await client.start()
    try:
        trips = sorted(await round_trips(client))
        print(
            f"one request, one token, idle engine: median {statistics.median(trips):.2f} ms, "
            f"p99 {trips[int(0.99 * len(trips))]:.2f} ms"
        )
        server, engine = psutil.Process(), psutil.Process(client.engine_pid)
        before_s, used_s = time.perf_counter(), (cpu_s(server), cpu_s(engine))
        counts = await asyncio.gather(*(read(client, request(str(i), num_tokens)) for i in range(num_requests)))
        wall_s = time.perf_counter() - before_s
        server_s, engine_s = cpu_s(server) - used_s[0], cpu_s(engine) - used_s[1]
    finally:
        await client.close()
    total = sum(counts)
    print(f"{num_requests} running requests: {total} token events in {wall_s:.2f} s = {total / wall_s:,.0f} events/s")
    print(
        f"server side: {server_s / total * 1e6:.1f} us of a core per event, keeps up with {total / server_s:,.0f} events/s"
    )
    print(f"engine side: {engine_s / total * 1e6:.1f} us of a core per event (schedule, fake step, commit, encode)")


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-requests", type=int, default=256)
    parser.add_argument("--num-tokens", type=int, default=400)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
    asyncio.run(measure(arguments.num_requests, arguments.num_tokens))


if __name__ == "__main__":
    main()
