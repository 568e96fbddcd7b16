"""Benchmark of ``plan``: processor time with 256 running and many waiting requests, by policy.

python benchmarks/scheduling_overhead.py
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from octavo.kvcache.cache import KVCache
from octavo.scheduler.classes import BUILT_IN
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies import POLICIES, make_policy
from octavo.scheduler.scheduler import Scheduler
from octavo.types import Request, Sample, SamplingParams, StepResult
from record import commit, show, spread

RUNNING, STEPS = 256, 150


def plan_ms(policy: str, num_waiting: int) -> dict[str, float]:
    """Milliseconds of processor time per plan, once all slots are taken and everybody decodes."""
    rng = random.Random(1)
    made = make_policy(policy, Forecast(classes=BUILT_IN))
    scheduler = Scheduler(made, KVCache(RUNNING * 80, 16), max_num_running=RUNNING, max_step_tokens=2048)
    now, costs = 0.0, []
    for i in range(RUNNING + num_waiting):
        prompt = [rng.randrange(500) for _ in range(rng.randint(100, 300))]
        fields = {"tenant": str(i % 8), "service_class": rng.choice(BUILT_IN), "priority": rng.randrange(3)}
        request = Request(f"r{i}", prompt, len(prompt), SamplingParams(), 900, frozenset(), now, **fields)
        scheduler.add(request, now)
    for step in range(100 + STEPS):
        started = time.process_time()
        plan = scheduler.plan(now)
        if step >= 100:
            costs.append((time.process_time() - started) * 1e3)
        samples = {share.request_id: Sample((7,)) for share in plan.requests if share.samples}
        now += 0.01
        scheduler.commit(plan, StepResult(samples, 0.005 + 3e-5 * plan.num_tokens), now)
    return spread(costs)


def main() -> None:
    found = {}
    for num_waiting in (250, 1000, 4000):
        for policy in POLICIES:
            found[f"{policy} {num_waiting} waiting"] = cost = plan_ms(policy, num_waiting)
            print(f"{policy:16s} {num_waiting:5d} waiting: {show(cost, 3, ' ms')}", flush=True)
    facts = {"commit": commit(), "command": "python benchmarks/scheduling_overhead.py", "running": RUNNING}
    out = Path(__file__).parents[1] / "docs" / "results" / "scheduling" / "overhead.json"
    out.write_text(json.dumps({"facts": facts, "plan_ms": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
