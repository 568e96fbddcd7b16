"""What a step costs beside the executor: scheduling, commit, bookkeeping, with the fake executor."""

from __future__ import annotations

import random
import time
from typing import Any

from octavo.config import EngineConfig
from octavo.engine.build import build_engine
from octavo.types import SamplingParams, Submission
from record import show, spread

STEPS = 400


def run() -> dict[str, Any]:
    return {
        f"{running}_running_{waiting}_waiting": _overhead(running, waiting)
        for running, waiting in ((64, 0), (256, 0), (256, 1000))
    }


def _overhead(num_running: int, num_waiting: int) -> dict[str, float]:
    rng = random.Random(4)
    config = EngineConfig(
        executor="fake",
        max_num_running=num_running,
        num_blocks=num_running * 80,
        max_step_tokens=8 * num_running,
        max_model_len=4096,
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
    costs = []
    for _ in range(STEPS):
        started = time.perf_counter()
        report = engine.step()
        costs.append((time.perf_counter() - started - report.stats.step_time_s) * 1e3)
    assert report.stats.step_num_requests == num_running
    return spread(costs) | {"p99": sorted(costs)[int(0.99 * len(costs))]}


def describe(figures: dict[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {show(cost, 3, ' ms')} a step beside the executor, p99 {cost['p99']:.3f} ms"
        for name, cost in figures.items()
    ]
