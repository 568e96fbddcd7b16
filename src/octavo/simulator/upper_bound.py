"""Upper bound on SLO attainment of any scheduler, clairvoyant ones included: a linear program over deadlines.

A request whose first token is on time got all its prefill between its arrival and its due time. In every interval [a, b]
the work of requests that arrive and are due within it takes at most b - a seconds:

    sum over j in [a, b] of x_j p_j <= b - a,    0 <= x_j <= 1

x_j: share of request j that attains its SLO. p_j: its prefill at the machine's full speed, less what the prefix cache could serve
at best; its output tokens are a second piece of work, due with its last token. The largest sum of x is a linear program
that no schedule beats (noise aside): preemption is free in it, steps have no grain, decodes cost nothing but their
rows. It is the feasibility condition of preemptive jobs (Horn 1974), relaxed to fractions. Of its constraints, one for
each pair of times, only violated ones are added (cutting planes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octavo.simulator.replay import Setup
from octavo.simulator.traffic import HASH_TOKENS, Arrival

ROUNDS = 200
SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class _Job:
    arrival_s: float
    prefill_s: float
    due_s: float
    decode_s: float
    done_s: float


def max_attained(
    arrivals: Sequence[Arrival], setup: Setup, counts: Callable[[Arrival], bool] = lambda one: True
) -> int:
    """At most so many of the arrivals that count can attain their SLO, whoever schedules them."""
    best_prefix = _best_prefixes(arrivals, setup)
    jobs, free = [], 0
    for one, cached in zip(arrivals, best_prefix, strict=True):
        slo = setup.classes.find(one.service_class)
        if not counts(one):
            continue
        if slo.ttft_s is None:
            free += 1  # no TTFT objective: no constraint
            continue
        prefill_s = _prefill_s(one.num_prompt_tokens - cached, cached, setup)
        if prefill_s > slo.ttft_s:
            continue  # lost in any case
        decode_s, due_s = (one.num_output_tokens - 1) * setup.machine.token_s, one.arrival_s + slo.ttft_s
        done_s = np.inf if slo.tpot_s is None else due_s + (one.num_output_tokens - 1) * slo.tpot_s
        jobs.append(_Job(one.arrival_s, prefill_s, due_s, decode_s, float(done_s)))
    return free + (int(_relaxed(jobs) + 1e-4) if jobs else 0)


def _prefill_s(num_tokens: int, cached: int, setup: Setup) -> float:
    machine = setup.machine
    per_token_s = machine.token_s + machine.overhead_s / setup.max_step_tokens
    return num_tokens * per_token_s + machine.pair_s * num_tokens * (cached + 0.5 * num_tokens)


def _best_prefixes(arrivals: Sequence[Arrival], setup: Setup) -> list[int]:
    """Prompt tokens that some other request of the same tenant, there before the due time, could have left in the cache."""
    first_s: dict[tuple[str, tuple[int, ...]], list[float]] = {}
    for one in arrivals:
        for size in range(1, len(one.hash_ids) + 1):
            first_s.setdefault((one.tenant, one.hash_ids[:size]), []).append(one.arrival_s)
    found = []
    for one in arrivals:
        due_s = one.arrival_s + (setup.classes.find(one.service_class).ttft_s or np.inf)
        shared = 0
        for size in range(1, len(one.hash_ids) + 1):
            if sum(came_s <= due_s for came_s in first_s[one.tenant, one.hash_ids[:size]][:3]) < 2:  # one is its own
                break
            shared = size
        found.append(max(0, min(shared * HASH_TOKENS, one.num_prompt_tokens - 1)))
    return found


def _relaxed(jobs: list[_Job]) -> float:
    """The linear program, by cutting planes."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, vstack

    starts = np.array([one.arrival_s for one in jobs] * 2)
    ends = np.array([one.due_s for one in jobs] + [one.done_s for one in jobs])
    work = np.array([one.prefill_s for one in jobs] + [one.decode_s for one in jobs])
    owner = np.tile(np.arange(len(jobs)), 2)
    by_end = np.argsort(ends, kind="stable")
    starts, ends, work, owner = starts[by_end], ends[by_end], work[by_end], owner[by_end]
    rows: Any = None
    limits: list[float] = []
    attained = np.ones(len(jobs))
    for _ in range(ROUNDS):
        found = _violated(starts, ends, work * attained[owner])
        if not found:
            break
        new = csr_matrix(
            np.array([np.bincount(owner, work * ((starts >= a) & (ends <= b)), len(jobs)) for a, b in found])
        )
        rows = new if rows is None else vstack([rows, new])
        limits += [b - a for a, b in found]
        attained = linprog(-np.ones(len(jobs)), A_ub=rows, b_ub=limits, bounds=(0, 1), method="highs").x
    return float(attained.sum())


def _violated(starts: Any, ends: Any, load: Any) -> list[tuple[float, float]]:
    """The worst interval for every beginning, if it holds more work than time; works are in order of their ends."""
    found = []
    for a in np.unique(starts):
        over = np.cumsum(np.where(starts >= a, load, 0.0)) - (ends - a)
        over[~np.isfinite(ends) | (starts < a)] = -np.inf
        at = int(np.argmax(over))
        if over[at] > SLACK_S:
            found.append((float(a), float(ends[at])))
    return found
