"""Data of a policy comparison as JSON: setup, metrics of each policy, SLO attainment over load, its upper bound and knee."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.simulator.compare import metrics
from octavo.simulator.replay import Replay, Setup
from octavo.simulator.sweep import Point, knee
from octavo.simulator.traffic import Arrival


@dataclass(frozen=True, slots=True)
class Loads:
    """A sweep of loads. ``target``: the SLO attainment up to the knee."""

    values: Sequence[float]
    seeds: range
    target: float


def of_one_load(replays: Sequence[Replay], arrivals: Sequence[Arrival], setup: Setup) -> dict[str, Any]:
    """``setup`` and ``policies.<name>``; the replays are of these arrivals."""
    facts = {"requests": len(arrivals), "rate_rps": len(arrivals) / max(arrivals[-1].arrival_s, 1e-9)}
    return {
        "setup": facts | _setup_facts(setup),
        "policies": {done.policy: metrics(done) for done in replays},
    }


def of_loads(points: Sequence[Point], loads: Loads, setup: Setup) -> dict[str, Any]:
    """``setup``, ``loads``, ``max_attainment`` at each load, and ``policies.<name>``: attainment at each load, the knee."""
    facts = {"requests": len(points[0].done.ended) + len(points[0].done.refused)} | _setup_facts(setup)
    facts |= {"target_attainment": loads.target, "seeds": len(loads.seeds)}
    per_load = points[0].rate_rps / points[0].load
    policies = {}
    for name in dict.fromkeys(one.done.policy for one in points):
        own = [one for one in points if one.done.policy == name]
        attainment = [_mean(one.attainment for one in own if one.load == load) for load in loads.values]
        bend = knee(loads.values, attainment, loads.target)
        policies[name] = {"knee_load": bend, "knee_rps": bend * per_load, "attainment": attainment}
    bound = [_mean(one.max_attainment for one in points if one.load == load) for load in loads.values]
    return {"setup": facts, "loads": list(loads.values), "max_attainment": bound, "policies": policies}


def _setup_facts(setup: Setup) -> dict[str, Any]:
    return {
        "machine_source": setup.machine.source,
        "max_num_running": setup.max_num_running,
        "max_step_tokens": setup.max_step_tokens,
        "lengths": setup.lengths,
        "seed": setup.seed,
    }


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
