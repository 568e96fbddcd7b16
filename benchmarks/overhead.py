"""Benchmark of a step's overhead, with the fake executor: scheduling and commit, the bubble between two steps, plan size on
the wire."""

from __future__ import annotations

import random
import time
from typing import Any

import msgspec

from octavo.config import EngineConfig
from octavo.engine.build import build_engine
from octavo.engine.core import Engine
from octavo.executor.fake import FakeExecutor
from octavo.types import Plan, SamplingParams, Step, Submission
from record import show, spread

STEPS = 400
STEP_MS = 5.0  # of the executor with two steps in flight


def run() -> dict[str, Any]:
    figures: dict[str, Any] = {
        f"{running}_running_{waiting}_waiting": _overhead(running, waiting)
        for running, waiting in ((64, 0), (256, 0), (256, 1000))
    }
    return figures | {f"bubble_{steps}_in_flight": _bubble(steps) for steps in (1, 2)} | {"plan_bytes": _plan_bytes()}


def _overhead(num_running: int, num_waiting: int) -> dict[str, float]:
    engine = _decoding(num_running, num_waiting)
    costs = []
    for _ in range(STEPS):
        started = time.perf_counter()
        report = engine.step()
        costs.append((time.perf_counter() - started - report.stats.step_time_s) * 1e3)
    assert report.stats.step_num_requests == num_running
    return spread(costs) | {"p99": sorted(costs)[int(0.99 * len(costs))]}


def _bubble(steps_in_flight: int) -> dict[str, float]:
    """Milliseconds that the executor has nothing to do between two steps of ``STEP_MS``, at 256 running requests."""
    engine = _decoding(256, 0, fake_step_ms=STEP_MS, fake_steps_in_flight=steps_in_flight)
    pauses = []
    executor = engine._executor
    assert isinstance(executor, FakeExecutor)
    for _ in range(STEPS):
        before_s, started = executor.idle_s, time.perf_counter()
        report = engine.step()
        if steps_in_flight == 1:  # it computes within the turn, and is idle in the rest of it
            pauses.append((time.perf_counter() - started - report.stats.step_time_s) * 1e3)
        else:
            pauses.append((executor.idle_s - before_s) * 1e3)
    return spread(pauses) | {"p99": sorted(pauses)[int(0.99 * len(pauses))]}


class _Recording:
    """An executor that keeps the plans."""

    def __init__(self, inner: FakeExecutor) -> None:
        self._inner, self.plans = inner, list[Plan]()
        self.max_in_flight, self.draft_limits = inner.max_in_flight, inner.draft_limits

    def launch(self, plan: Plan) -> Step:
        self.plans.append(plan)
        return self._inner.launch(plan)

    def close(self) -> None:
        self._inner.close()


def _plan_bytes() -> dict[str, float]:
    """msgpack bytes of a plan for each of 256 decoding requests."""
    engine = _decoding(256, 0)
    executor = engine._executor
    assert isinstance(executor, FakeExecutor)
    recording = engine._executor = _Recording(executor)
    for _ in range(64):
        engine.step()
    return spread([len(msgspec.msgpack.encode(plan)) / len(plan.requests) for plan in recording.plans])


def _decoding(num_running: int, num_waiting: int, **settings: Any) -> Engine:
    """An engine all of whose running requests decode."""
    rng = random.Random(4)
    config = EngineConfig(
        executor="fake",
        max_num_running=num_running,
        num_blocks=num_running * 80,
        max_step_tokens=8 * num_running,
        max_model_len=4096,
        **settings,
    )
    engine = build_engine(config, "fake", None, frozenset()).engine
    for i in range(num_running + num_waiting):
        prompt = [rng.randrange(500) for _ in range(rng.randint(100, 300))]
        params = SamplingParams(max_tokens=900, temperature=0)
        engine.submit(
            Submission(request_id=f"r{i}", prompt_token_ids=prompt, params=params, arrival_s=time.monotonic())
        )
    while True:
        report = engine.step()
        if report.stats.num_running == num_running and report.stats.step_num_tokens == num_running:
            break
    return engine


def describe(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"{name.replace('_', ' ')}: {show(cost, 3, ' ms')} a step beside the executor, p99 {cost['p99']:.3f} ms"
        for name, cost in figures.items()
        if name.endswith("waiting")
    ]
    lines += [
        f"pause between two steps of {STEP_MS:g} ms, 256 running, {steps} in flight: {show(pause, 3, ' ms')}, "
        f"p99 {pause['p99']:.3f} ms"
        for steps in (1, 2)
        if (pause := figures.get(f"bubble_{steps}_in_flight"))
    ]
    return [*lines, f"a plan on the wire: {show(figures['plan_bytes'], 0, ' bytes')} for each decoding request"]
