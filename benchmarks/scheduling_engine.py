"""The same policies on the real engine and on the simulator fitted to it: is the order of the policies the same?

    python benchmarks/scheduling_engine.py --seconds 40 --repeats 2

The default model on this machine's processor, in this process, in real time; policies take turns. The simulator's machine is
the forecast that the engine itself learned in these runs. Promises are those of a slow machine, stated in ``CLASSES``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from octavo.config import DEFAULT_MODEL, EngineConfig
from octavo.engine.build import build_engine
from octavo.models.catalogue import resolve
from octavo.scheduler.classes import ServiceClasses
from octavo.simulator.books import Ended
from octavo.simulator.machine import Machine
from octavo.simulator.replay import Setup, replay
from octavo.simulator.traffic import Arrival
from octavo.types import SamplingParams, ServiceClass, Submission
from record import commit

POLICIES = ("fcfs", "priority", "slo")
CLASSES = (
    ServiceClass(name="interactive", ttft_s=1.5, tpot_s=0.25, max_wait_s=60.0),
    ServiceClass(name="standard", ttft_s=5.0, tpot_s=0.5, max_wait_s=60.0),
    ServiceClass(name="batch", max_wait_s=60.0),
)


def traffic(seconds: float, per_second: float, seed: int) -> list[Arrival]:
    rng, now, found = random.Random(seed), 0.0, []
    while (now := now + rng.expovariate(per_second)) < seconds:
        level = rng.choices((0, 1, 2), (0.4, 0.4, 0.2))[0]
        num_prompt = min(900, max(16, int(rng.lognormvariate(5.0, 0.8))))
        num_output = min(120, max(4, int(rng.lognormvariate(3.2, 0.6))))
        tenant = f"t{rng.randrange(4)}"
        found.append(
            Arrival(f"r{len(found)}", now, num_prompt, num_output, num_output, CLASSES[level].name, tenant, level)
        )
    return found


def run_engine(engine: Any, arrivals: list[Arrival], run: str) -> list[Ended]:
    """In real time, from submission to the last end."""
    by_name = {one.name: one for one in CLASSES}
    start, waiting, by_id, ended = time.monotonic(), list(arrivals), {}, []
    rng = random.Random(run)
    while waiting or engine.has_work:
        now = time.monotonic() - start
        while waiting and waiting[0].arrival_s <= now:
            one = waiting.pop(0)
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
            time.sleep(max(0.0, waiting[0].arrival_s - now))
            continue
        for event in engine.step().events:
            if event.finish_reason is not None and event.timings is not None:
                one = by_id[event.request_id]
                ended.append(Ended(one, event.timings, by_name[one.service_class]))
    return ended


def told(ended: list[Ended], seconds: float) -> dict[str, float]:
    urgent = [one for one in ended if one.promise.name == "interactive"]
    return {
        "goodput_rps": sum(one.kept_promise for one in ended) / seconds,
        "interactive_violations": sum(not one.kept_promise for one in urgent) / max(1, len(urgent)),
        "interactive_ttft_median_s": statistics.median(one.timings.ttft_s or 0.0 for one in urgent),
        "requests": len(ended),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("docs/results/scheduling/engine.json"))
    options = parser.parse_args()
    path = resolve(DEFAULT_MODEL).path
    built = {
        name: build_engine(EngineConfig(policy=name, max_num_running=32), DEFAULT_MODEL, path, frozenset()).engine
        for name in POLICIES
    }
    rows = []
    for name, engine in built.items():  # the default classes are those of a fast machine
        engine._defaults = type(engine._defaults)(classes=ServiceClasses(CLASSES))
        engine._scheduler.policy.forecast.classes = CLASSES
        run_engine(engine, traffic(4.0, 3.0, 99), f"warm-{name}")
    for repeat in range(options.repeats):
        arrivals = traffic(options.seconds, options.rate, repeat)
        for name in POLICIES:
            ended = run_engine(built[name], arrivals, f"{repeat}{name}")
            rows.append({"where": "engine", "policy": name, "run": repeat} | told(ended, options.seconds))
            print(rows[-1], flush=True)
    learned = built["slo"]._scheduler.policy.forecast.step_time
    fixed, prefill, row, context, pair = learned.coefficients
    machine = Machine(fixed, 0.0, max(prefill, 1e-9), context, pair, 100_000, "fitted", noise=0.2)
    for repeat in range(options.repeats):
        arrivals = traffic(options.seconds, options.rate, repeat)
        for name in POLICIES:
            done = replay(name, arrivals, Setup(machine, ServiceClasses(CLASSES), 32, 512, seed=repeat))
            rows.append({"where": "simulator", "policy": name, "run": repeat} | told(done.ended, options.seconds))
            print(rows[-1], flush=True)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "command": f"python benchmarks/scheduling_engine.py --seconds {options.seconds:g} --rate {options.rate:g}",
        "forecast_error": learned.error,
        "coefficients": learned.coefficients,
        "decode_row_s": row,
    }
    options.out.write_text(json.dumps({"facts": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
