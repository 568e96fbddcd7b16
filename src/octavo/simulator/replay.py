"""One policy, one machine, one list of arrivals: run the real engine over them in virtual time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import NamedTuple

from octavo.engine.core import Engine
from octavo.engine.submission import RequestDefaults
from octavo.errors import ConfigError, OctavoError
from octavo.kvcache.cache import KVCache
from octavo.scheduler.classes import ServiceClasses
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.lengths import LengthForecast, NoForecast, Oracle, RecentQuantile
from octavo.scheduler.policies import make_policy
from octavo.scheduler.scheduler import Scheduler
from octavo.simulator.accounting import Ended, FairnessMeter
from octavo.simulator.executor import END_TOKEN, SimExecutor, VirtualClock
from octavo.simulator.machine import Machine
from octavo.simulator.traffic import Arrival
from octavo.types import EngineInfo, FinishReason, SamplingParams, Submission

VOCAB_SIZE = 2**40  # hash ids of traces serve as token ids


@dataclass(frozen=True, slots=True)
class Setup:
    """What stays the same between policies."""

    machine: Machine
    classes: ServiceClasses = field(default_factory=ServiceClasses)
    max_num_running: int = 256
    max_step_tokens: int = 2048
    block_size: int = 16
    lengths: str = "quantile"  # or "oracle", "none"
    seed: int = 0
    max_in_flight: int = 1  # steps launched before the oldest is committed


@dataclass(frozen=True, slots=True)
class Replay:
    """What happened. ``refused``: arrivals that got one error at once instead of an end."""

    policy: str
    ended: list[Ended]
    refused: list[tuple[Arrival, OctavoError]]
    fairness: FairnessMeter
    virtual_s: float
    wall_s: float
    num_steps: int
    num_preemptions: int
    forecast_error: float

    @property
    def output_tokens_per_s(self) -> float:
        return sum(one.arrival.num_output_tokens for one in self.ended) / max(self.virtual_s, 1e-9)

    @property
    def goodput_rps(self) -> float:
        """Requests whose SLO was attained, per second of arrivals."""
        arrivals = [one.arrival.arrival_s for one in self.ended] + [one.arrival_s for one, _ in self.refused]
        span_s = max(arrivals) - min(arrivals) if len(arrivals) > 1 else self.virtual_s
        return sum(one.slo_attained for one in self.ended) / max(span_s, 1e-9)


def replay(policy: str, arrivals: Sequence[Arrival], setup: Setup) -> Replay:
    """Arrivals in order of time. Every one of them ends, or is refused at once."""
    clock, meter = VirtualClock(), FairnessMeter()
    ends_after = {one.request_id: one.num_prompt_tokens + one.num_output_tokens - 1 for one in arrivals}
    executor = SimExecutor(
        setup.machine, clock, ends_after, seed=setup.seed, watch=meter.stepped, max_in_flight=setup.max_in_flight
    )
    engine, forecast = _engine(policy, arrivals, setup, VirtualExecution(executor, clock))
    by_id = {one.request_id: one for one in arrivals}
    ended: list[Ended] = []
    refused: list[tuple[Arrival, OctavoError]] = []
    started_s, num_steps, num_preemptions, next_at = time.perf_counter(), 0, 0, 0
    while next_at < len(arrivals) or engine.has_work:
        while next_at < len(arrivals) and (arrivals[next_at].arrival_s <= clock.now_s or not engine.has_work):
            arrival = arrivals[next_at]
            clock.now_s = max(clock.now_s, arrival.arrival_s)
            next_at += 1
            try:
                engine.submit(_submission(arrival))
                meter.came(arrival.request_id, arrival.tenant)
            except OctavoError as error:
                refused.append((arrival, error))
        if not engine.has_work:
            continue
        report = engine.step()
        num_steps, num_preemptions = num_steps + 1, report.stats.total_preemptions
        for event in report.events:
            if event.finish_reason is not None:
                assert event.finish_reason in (FinishReason.STOP, FinishReason.LENGTH) and event.timings is not None
                arrival = by_id[event.request_id]
                ended.append(Ended(arrival, event.timings, setup.classes.find(arrival.service_class)))
    return Replay(
        policy=policy,
        ended=ended,
        refused=refused,
        fairness=meter,
        virtual_s=clock.now_s - (arrivals[0].arrival_s if arrivals else 0.0),
        wall_s=time.perf_counter() - started_s,
        num_steps=num_steps,
        num_preemptions=num_preemptions,
        forecast_error=forecast.step_time.error,
    )


def capacity_rps(arrivals: Sequence[Arrival], setup: Setup) -> float:
    """Requests per second when all are there at once and order does not matter: the load 1."""
    done = replay("fcfs", [changed(one, arrival_s=0.0) for one in arrivals], setup)
    return len(done.ended) / max(done.virtual_s, 1e-9)


class VirtualExecution(NamedTuple):
    """Simulated steps and the virtual clock that they advance."""

    executor: SimExecutor
    clock: VirtualClock


def _engine(
    policy: str, arrivals: Sequence[Arrival], setup: Setup, execution: VirtualExecution
) -> tuple[Engine, Forecast]:
    outputs = {one.request_id: one.num_output_tokens for one in arrivals}
    lengths: dict[str, LengthForecast] = {
        "quantile": RecentQuantile(),
        "oracle": Oracle(outputs),
        "none": NoForecast(),
    }
    if setup.lengths not in lengths:
        raise ConfigError(f"unknown lengths {setup.lengths!r}; known: {', '.join(lengths)}", param="lengths")
    forecast = Forecast(lengths=lengths[setup.lengths], classes=setup.classes.all)
    num_blocks = setup.machine.kv_tokens // setup.block_size
    kv = KVCache(num_blocks, setup.block_size, prefix_cache=any(one.hash_ids for one in arrivals))
    scheduler = Scheduler(
        make_policy(policy, forecast),
        kv,
        max_num_running=setup.max_num_running,
        max_step_tokens=setup.max_step_tokens,
    )
    info = EngineInfo(
        model="simulated",
        vocab_size=VOCAB_SIZE,
        max_model_len=num_blocks * setup.block_size,
        block_size=setup.block_size,
        num_blocks=num_blocks,
    )
    defaults = RequestDefaults(frozenset({END_TOKEN}), classes=setup.classes)
    return Engine(scheduler, execution.executor, info, defaults, execution.clock), forecast


def _submission(arrival: Arrival) -> Submission:
    return Submission(
        request_id=arrival.request_id,
        prompt_token_ids=arrival.prompt(),
        params=SamplingParams(max_tokens=arrival.max_tokens, temperature=0.0, seed=0),
        arrival_s=arrival.arrival_s,
        priority=arrival.priority,
        tenant=arrival.tenant,
        service_class=arrival.service_class,
    )
