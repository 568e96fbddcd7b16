"""The theorems of docs/scheduling.md on random traffic: the bound on waiting, the bound on the gap between tenants."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kvcache.cache import KVCache
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies import make_policy
from octavo.scheduler.policies.slo import SlackFirst
from octavo.scheduler.scheduler import Scheduler
from octavo.scheduler.service import OUTPUT_WEIGHT
from octavo.simulator.accounting import FairnessMeter
from octavo.types import DEFAULT_CLASS, Request, ServiceClass
from support.scheduling import finish_step, make_request

pytestmark = pytest.mark.no_cover  # long walks through lines that other tests cover: counting would double their time
URGENT = ServiceClass(name="urgent", ttft_s=2.0, tpot_s=1.0, max_wait_s=20.0)
PATIENT = ServiceClass(name="patient", max_wait_s=30.0)
BLOCK = 4


@settings(max_examples=100, deadline=None)
@given(
    policy=st.sampled_from(["vtc", "slo"]),
    lead=st.integers(0, 40),
    num_blocks=st.integers(12, 18),
    slots=st.integers(1, 5),
    budget=st.integers(8, 40),
    seed=st.integers(0, 2**32),
)
def test_the_gap_between_tenants_that_wait_stays_within_its_bound(
    policy: str, lead: int, num_blocks: int, slots: int, budget: int, seed: int
) -> None:
    """Theorem 2: while two tenants wait, their service changes against each other by at most 2 (U + L + w M) + 2 M."""
    rng = random.Random(seed)
    made = make_policy(policy, Forecast(classes=(URGENT, PATIENT)))
    if isinstance(made, SlackFirst):
        made.fair_lead_tokens, made.fair_lead_prompts, made.fair_lead_cache = float(lead), lead % 2, lead % 3 / 8
    scheduler = Scheduler(made, KVCache(num_blocks, BLOCK), max_num_running=slots, max_step_tokens=budget)
    meter, now, longest = FairnessMeter(), 0.0, 0
    for i in range(90):
        tenant = "greedy" if i < 45 else rng.choice(("polite", "polite", "shy"))
        promise = rng.choice((URGENT, PATIENT, DEFAULT_CLASS))
        num_prompt = rng.randint(2, 24)
        longest = max(longest, num_prompt)
        request = make_request(
            f"r{i}", [rng.randrange(9) for _ in range(num_prompt)], rng.randint(1, 20), tenant=tenant, arrival_s=now
        )
        request.service_class = promise
        scheduler.add(request, now)
        meter.came(request.request_id, tenant)
        for _ in range(i > 45 and rng.choice((0, 0, 1))):
            now = step(scheduler, meter, now)
    while scheduler.has_work:
        now = step(scheduler, meter, now)
    ahead = max(lead, lead % 2 * longest, lead % 3 / 8 * num_blocks * BLOCK) if policy == "slo" else 0
    assert meter.gap <= 2 * (ahead + longest + OUTPUT_WEIGHT * num_blocks * BLOCK) + 2 * num_blocks * BLOCK


def step(scheduler: Scheduler, meter: FairnessMeter, now: float) -> float:
    plan = scheduler.plan(now)
    seconds = 0.05 + 0.01 * plan.num_tokens
    meter.stepped(plan, seconds)
    finish_step(scheduler, plan, now, seconds, check=False)
    return now + seconds


@settings(max_examples=60, deadline=None)
@given(urgent_share=st.floats(0.0, 0.95), load=st.floats(0.2, 0.8), seed=st.integers(0, 2**32))
def test_nobody_waits_longer_than_its_bound_while_the_load_is_feasible(
    urgent_share: float, load: float, seed: int
) -> None:
    """Theorem 1, on a machine with room for all that is admitted, whose load is below what it can do."""
    rng, now, found = random.Random(seed), 0.0, []
    scheduler = Scheduler(
        make_policy("slo", Forecast(classes=(URGENT, PATIENT))),
        KVCache(512, BLOCK),
        max_num_running=12,
        max_step_tokens=64,
    )
    served: dict[str, float] = {}
    longest_gap: dict[str, float] = {}
    due = 0.0
    for i in itertools.count():
        while due <= now and len(found) < 60:
            promise = URGENT if rng.random() < urgent_share else PATIENT
            num_prompt, max_tokens = rng.randint(2, 60), rng.randint(1, 12)
            request = make_request(f"r{len(found)}", [1] * num_prompt, max_tokens, arrival_s=now, tenant=str(i % 3))
            request.service_class = promise
            scheduler.add(request, now)
            found.append(request)
            served[request.request_id] = now
            due += rng.expovariate(1.0) * (num_prompt + max_tokens) * 0.012 / load
        if not scheduler.has_work:
            if len(found) == 60:
                break
            now = due
            continue
        plan = scheduler.plan(now)
        seconds = 0.02 + 0.01 * plan.num_tokens
        for share in plan.requests:
            name = share.request_id
            longest_gap[name] = max(longest_gap.get(name, 0.0), now - served[name])
            served[name] = now + seconds
        finish_step(scheduler, plan, now, seconds, check=False)
        now += seconds
    for request in found:
        assert longest_gap[request.request_id] <= bound(request), request.request_id


def bound(request: Request) -> float:
    return request.service_class.max_wait_s or 0.0
