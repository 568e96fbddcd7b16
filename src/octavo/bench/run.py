"""One run of a load plan against one server: preflight, sending, outcome, validity."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from octavo.bench.client.connection_pool import Dialer
from octavo.bench.client.health import verdict
from octavo.bench.client.journal import Journal, JournalHead
from octavo.bench.client.load_generator import LoadGenerator, Wire
from octavo.bench.client.options import ClientOptions
from octavo.bench.client.preflight import preflight, read_metrics
from octavo.bench.client.progress import Observer, Silent
from octavo.bench.client.target import RequestWriter, Target, check_plan, parse_address
from octavo.bench.types import LoadPlan, RequestRecord

OTHER_FILES = 256
CLOSING_S = 0.01  # the loop closes connections in its own time, and their files may be needed
STOPPED = "stopped by the user"


class RunOutcome(msgspec.Struct, kw_only=True):
    """What a run gave. ``records`` are in the plan's order, one of each request that was due."""

    records: list[RequestRecord]
    valid: bool
    invalid_reason: str | None
    stopped_by_user: bool = False  # a series of runs ends here
    model: str
    created: str  # start, ISO 8601, UTC
    duration_s: float  # until the last request ended
    server_metrics: dict[str, dict[str, float]]  # "before", "after"; empty if the server offers none
    server_series: list[dict[str, float]]  # t_s, in_flight, and what the server offers: running, waiting, kv_usage
    client: dict[str, float]  # num_connections, worst_stall_s, stalled_s, cpu_s


class Interrupts:
    """Ctrl-C as a wish: the run in progress ends at once with what it has; a second one ends the program."""

    def __init__(self) -> None:
        self._generator: LoadGenerator | None = None

    @contextlib.contextmanager
    def of(self, generator: LoadGenerator) -> Iterator[None]:
        self._generator = generator
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._stop, loop)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_signal_handler(signal.SIGINT)
        if self._generator is not None:
            self._generator.stop(STOPPED)


async def run_plan(
    plan: LoadPlan,
    target: Target,
    options: ClientOptions | None = None,
    observer: Observer | None = None,
    *,
    interrupts: Interrupts | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> RunOutcome:
    """Send ``plan`` to ``target`` and wait for all responses.

    Raises ``BenchError`` if the server cannot be reached, ``ConfigError`` for a plan, URL or journal path that cannot be used:
    all before the first request. After it nothing raises: what goes wrong is in the records and the verdict. With a
    journal, cancelling leaves on disk what was measured so far.
    """
    options = options or ClientOptions()
    check_plan(plan, target)
    ready = await preflight(target)
    target = ready.target
    address = parse_address(target)
    writer = RequestWriter(target, address, options)
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    head = JournalHead(
        url=target.url,
        model=target.model,
        workload=plan.workload,
        arrivals=plan.arrivals,
        seed=plan.seed,
        created=created,
    )
    with Journal(options.journal, head) as journal:
        generator = LoadGenerator(
            plan, Wire(Dialer(target, address), writer), options, journal, observer or Silent(), clock
        )
        generator.scraper.offered = bool(ready.metrics)
        await generator.warm()
        cpu_s = time.process_time()
        with _quiet_gc(), interrupts.of(generator) if interrupts else contextlib.nullcontext():
            await generator.run()
        cpu_s = time.process_time() - cpu_s
    await asyncio.sleep(CLOSING_S)
    health = generator.health()
    reason = verdict(generator.records, health, options)
    return RunOutcome(
        records=sorted(generator.records, key=lambda record: record.index),
        valid=reason is None,
        invalid_reason=reason,
        stopped_by_user=health.stopped == STOPPED,
        model=target.model,
        created=created,
        duration_s=generator.duration_s,
        server_metrics={"before": ready.metrics, "after": await read_metrics(target)} if ready.metrics else {},
        server_series=generator.scraper.series,
        client={
            "num_connections": float(health.num_connections),
            "worst_stall_s": health.stalls.worst_s,
            "stalled_s": health.stalls.total_s,
            "cpu_s": cpu_s,
        },
    )


def run_blocking(
    plan: LoadPlan, target: Target, options: ClientOptions | None = None, observer: Observer | None = None
) -> RunOutcome:
    """``run_plan`` from a program without an event loop, on uvloop where there is one. The first Ctrl-C ends the run with what
    was measured so far (invalid: stopped by the user), the second one raises ``KeyboardInterrupt``."""
    if sys.platform == "win32":
        return asyncio.run(run_plan(plan, target, options, observer))
    import uvloop

    options = options or ClientOptions()
    _allow_open_files(options.max_connections + OTHER_FILES)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_plan(plan, target, options, observer, interrupts=Interrupts()))


def _allow_open_files(count: int) -> None:
    """A connection is an open file, and many systems allow 1024 unless asked; what the hard limit forbids stays forbidden."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _quiet_gc() -> Iterator[None]:
    """No garbage collection while measuring: one over the records of a long run stops the client for tens of milliseconds.
    What the client makes per request is freed by reference counts."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
