"""Comparison of scheduling policies on the real engine and on the simulator fitted to it: same order of the policies.

    python benchmarks/scheduling_engine.py --rounds 5 --seconds 60

The default model on this machine's processor, in this process, in real time. First the machine's capacity is measured;
rates and promises follow from it, so that the same situation arises on any machine: bursts of 1.7 times what it can do,
with pauses. Policies take turns, a slice each a round, over the same requests at the same times. The simulator's machine
is the step-time model that the engine's own forecast has learned. Writes engine.json and engine.md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.bench.statistics.effect import ratio_interval
from octavo.config import DEFAULT_MODEL, EngineConfig
from octavo.engine.build import build_engine
from octavo.engine.core import Engine
from octavo.engine.submission import RequestDefaults
from octavo.kvcache.cache import KVCache
from octavo.models.registry import find_model
from octavo.scheduler.classes import ServiceClasses
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies import make_policy
from octavo.scheduler.scheduler import Scheduler
from octavo.scheduler.step_time import StepLoad, StepTimeForecast
from octavo.simulator.accounting import Ended, quantile
from octavo.simulator.machine import Machine
from octavo.simulator.replay import Setup, replay
from octavo.simulator.traffic import Arrival
from octavo.types import SamplingParams, ServiceClass, Submission
from record import environment

POLICIES = ("fcfs", "priority", "slo")
SLOTS = 32
BURST, PAUSE, PHASE_S = 1.7, 0.2, 10.0  # arrivals, of what the machine can do, in turns
SHARES = (0.4, 0.4, 0.2)
NUM_CALIBRATION = 120


class Fitted(Machine):
    """What the engine's forecast has learned, rows and prompts at prices of their own."""

    coefficients: tuple[float, ...]

    def __init__(self, learned: StepTimeForecast, kv_tokens: int) -> None:
        noise = 1.25 * learned.error  # standard deviation of a normal with that mean error
        super().__init__(0.0, 0.0, 0.0, 0.0, 0.0, kv_tokens, "fitted", noise=noise)
        object.__setattr__(self, "coefficients", learned.coefficients)

    def seconds(self, load: StepLoad) -> float:
        fixed, prefill, row, context, pair = self.coefficients
        linear = fixed + prefill * load.prefill_tokens + row * load.decode_rows
        return linear + context * load.context_tokens + pair * load.attended_pairs


@dataclass(frozen=True)
class Rig:
    """One executor under every policy; what the machine can do and what it promises."""

    engines: dict[str, Engine]
    forecasts: dict[str, Forecast]
    classes: ServiceClasses
    capacity_rps: float
    step_s: float


def one_arrival(rng: random.Random, number: int, now: float) -> Arrival:
    level = rng.choices((0, 1, 2), SHARES)[0]
    num_prompt = min(900, max(16, int(rng.lognormvariate(5.0, 0.8))))
    num_output = min(120, max(4, int(rng.lognormvariate(3.2, 0.6))))
    name, tenant = ("interactive", "standard", "batch")[level], f"t{rng.randrange(4)}"
    return Arrival(f"r{number}", now, num_prompt, num_output, num_output, name, tenant, level)


def traffic(seconds: float, capacity_rps: float, seed: int) -> list[Arrival]:
    """Poisson, in bursts and pauses."""
    rng, now, found = random.Random(seed), 0.0, []
    while now < seconds:
        rate = capacity_rps * (BURST if int(now / PHASE_S) % 2 == 0 else PAUSE)
        now += rng.expovariate(rate)
        if now < seconds:
            found.append(one_arrival(rng, len(found), now))
    return found


def run_engine(engine: Engine, arrivals: list[Arrival], run: str, classes: ServiceClasses) -> list[Ended]:
    """In real time, from submission to the last end."""
    start, waiting, by_id, ended = time.monotonic(), list(arrivals)[::-1], {}, []
    rng = random.Random(run)
    while waiting or engine.has_work:
        now = time.monotonic() - start
        while waiting and waiting[-1].arrival_s <= now:
            one = waiting.pop()
            by_id[f"{run}-{one.request_id}"] = one
            engine.submit(
                Submission(
                    request_id=f"{run}-{one.request_id}",
                    prompt_token_ids=[rng.randrange(1000, 40_000) for _ in range(one.num_prompt_tokens)],
                    params=SamplingParams(max_tokens=one.max_tokens, ignore_eos=True, temperature=0),
                    arrival_s=start + one.arrival_s,
                    priority=one.priority,
                    tenant=one.tenant,
                    service_class=one.service_class,
                )
            )
        if not engine.has_work:
            time.sleep(max(0.0, waiting[-1].arrival_s - now))
            continue
        for event in engine.step().events:
            if event.finish_reason is not None and event.timings is not None:
                one = by_id[event.request_id]
                ended.append(Ended(one, event.timings, classes.find(one.service_class)))
    return ended


def build() -> Rig:
    """Load the model once, measure what the machine can do, and promise accordingly."""
    config = EngineConfig(policy="fcfs", max_num_running=SLOTS, prefix_cache=False)
    built = build_engine(config, DEFAULT_MODEL, find_model(DEFAULT_MODEL).path, frozenset())
    settings, first = built.resolution.config, built.engine

    def engine(policy: str, classes: ServiceClasses) -> tuple[Engine, Forecast]:
        forecast = Forecast(classes=classes.all)
        kv = KVCache(settings.num_blocks, settings.block_size, prefix_cache=False)
        scheduler = Scheduler(
            make_policy(policy, forecast), kv, max_num_running=SLOTS, max_step_tokens=settings.max_step_tokens
        )
        return Engine(scheduler, first._executor, first.info, RequestDefaults(classes=classes)), forecast

    rng, unpromised = random.Random(99), ServiceClasses()
    at_once = [one_arrival(rng, i, 0.0) for i in range(NUM_CALIBRATION)]
    calibrated, learned = engine("fcfs", unpromised)
    run_engine(calibrated, at_once[:20], "warm", unpromised)
    started = time.monotonic()
    run_engine(calibrated, at_once, "capacity", unpromised)
    capacity = NUM_CALIBRATION / (time.monotonic() - started)
    step_s = learned.step_time.seconds(StepLoad(0, SLOTS, SLOTS * 200))
    classes = ServiceClasses(
        (
            ServiceClass(name="interactive", ttft_s=8 / capacity, tpot_s=3 * step_s, max_wait_s=60.0),
            ServiceClass(name="standard", ttft_s=40 / capacity, tpot_s=6 * step_s, max_wait_s=60.0),
            ServiceClass(name="batch", max_wait_s=60.0),
        )
    )
    pairs = {policy: engine(policy, classes) for policy in POLICIES}
    engines, forecasts = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
    for policy in POLICIES:
        run_engine(engines[policy], at_once[:20], f"warm {policy}", classes)
    return Rig(engines, forecasts, classes, capacity, step_s)


def told(ended: list[Ended], seconds: float) -> dict[str, float | None]:
    urgent = [one for one in ended if one.service_class.name == "interactive"]
    ttft = [one.timings.ttft_s or 0.0 for one in urgent]
    return {
        "goodput_rps": sum(one.slo_attained for one in ended) / seconds,
        "kept": sum(one.slo_attained for one in ended) / max(1, len(ended)),
        "interactive_violations": sum(not one.slo_attained for one in urgent) / max(1, len(urgent)),
        "interactive_ttft_p50_s": quantile(ttft, 0.5),
        "interactive_ttft_p99_s": quantile(ttft, 0.99),
        "requests": len(ended),
    }


def measure(rig: Rig, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Slices on the engine first, policies in turns; then the same on the simulator."""
    rows = []
    for turn in range(rounds):
        arrivals = traffic(seconds, rig.capacity_rps, turn)
        for name in POLICIES[turn % 3 :] + POLICIES[: turn % 3]:
            ended = run_engine(rig.engines[name], arrivals, f"{turn} {name}", rig.classes)
            rows.append({"where": "engine", "policy": name, "round": turn} | told(ended, seconds))
            print(rows[-1], flush=True)
    info = rig.engines["slo"].info
    machine = Fitted(rig.forecasts["slo"].step_time, info.num_blocks * info.block_size)
    budget = rig.engines["slo"]._scheduler.max_step_tokens
    for turn in range(rounds):
        arrivals = traffic(seconds, rig.capacity_rps, turn)
        for name in POLICIES:
            done = replay(name, arrivals, Setup(machine, rig.classes, SLOTS, budget, info.block_size, seed=turn))
            rows.append({"where": "simulator", "policy": name, "round": turn} | told(done.ended, seconds))
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Means over rounds, least and most in brackets; the ratio to slo with its interval."""
    columns = ("goodput_rps", "kept", "interactive_violations", "interactive_ttft_p50_s", "interactive_ttft_p99_s")
    lines = ["| where | policy | slo / this | " + " | ".join(one.replace("_", " ") for one in columns) + " |"]
    lines.append("|---|---|---|" + "---|" * len(columns))
    for where in ("engine", "simulator"):
        of = {name: [r for r in rows if (r["where"], r["policy"]) == (where, name)] for name in POLICIES}
        for name, own in of.items():
            goodput = [[max(r["goodput_rps"], 1e-6) for r in one] for one in (own, of["slo"])]
            ratio = ratio_interval(goodput[0], goodput[1], 0)
            bounds = "" if ratio.low is None else f" ({ratio.low:.2f}-{ratio.high:.2f})"
            cells = ["" if name == "slo" else f"{ratio.value:.2f}{bounds}"]
            for column in columns:
                values = [r[column] for r in own]
                cells.append(f"{statistics.fmean(values):.3g} ({min(values):.3g}-{max(values):.3g})")
            lines.append(f"| {where} | {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of one slice")
    parser.add_argument("--rounds", type=int, default=5, help="slices of each policy")
    parser.add_argument("--out", type=Path, default=Path("docs/results/scheduling"))
    options = parser.parse_args()
    rig = build()
    print(f"capacity {rig.capacity_rps:.2f} requests/s, a full decode step {rig.step_s * 1e3:.1f} ms", flush=True)
    rows = measure(rig, options.rounds, options.seconds)
    learned = rig.forecasts["slo"].step_time
    facts = environment() | {
        "model": DEFAULT_MODEL,
        "executor": rig.engines["slo"].info.device,
        "capacity_rps": rig.capacity_rps,
        "promises": [{"name": c.name, "ttft_s": c.ttft_s, "tpot_s": c.tpot_s} for c in rig.classes.all],
        "coefficients": learned.coefficients,
        "forecast_error": learned.error,
    }
    (options.out / "engine.json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")
    promises = "; ".join(
        f"{c.name} {c.ttft_s:.2f} s / {c.tpot_s * 1e3:.0f} ms" for c in rig.classes.all if c.ttft_s and c.tpot_s
    )
    text = (
        f"`{facts['command']}`, commit {facts['commit']}, {facts['date']}, {facts['cpu']}, {facts['cores']} cores, "
        f"{DEFAULT_MODEL}, executor {facts['executor']}. Capacity {rig.capacity_rps:.2f} requests/s; arrivals at {BURST} and "
        f"{PAUSE} of it in turns of {PHASE_S:.0f} s; {options.rounds} slices of {options.seconds:.0f} s a policy, in turns. "
        f"Promises: {promises}. The forecast that the simulator runs on is off by {learned.error:.1%} of a step on average."
    )
    head = ["# Policies on the real engine", "", text, ""]
    (options.out / "engine.md").write_text("\n".join([*head, *table(rows)]) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
