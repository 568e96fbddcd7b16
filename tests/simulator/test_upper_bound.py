"""Upper bound on SLO attainment: never below what a replay attains, and tight where that is known."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.scheduler.classes import BUILT_IN
from octavo.simulator.machine import Machine
from octavo.simulator.replay import Setup, replay
from octavo.simulator.traffic import Arrival
from octavo.simulator.upper_bound import max_attained

# a thousand prompt tokens a second, nothing else costs time
PLAIN = Machine(0.0, 0.0, 1e-3, 0.0, 0.0, 100_000, "plain", noise=0.0)


def arrival(name: str, at_s: float, num_prompt: int, promise: str = "interactive", **more: object) -> Arrival:
    return Arrival(name, at_s, num_prompt, 1, 1, promise, **more)  # type: ignore[arg-type]


def test_what_fits_into_the_time_is_attained_and_no_more() -> None:
    setup = Setup(PLAIN)
    assert max_attained([arrival("a", 0.0, 250), arrival("b", 0.0, 250)], setup) == 2
    assert max_attained([arrival("a", 0.0, 250), arrival("b", 0.0, 260)], setup) == 1
    assert max_attained([arrival("a", 0.0, 250), arrival("b", 0.3, 400)], setup) == 2, "b may end later"
    assert max_attained([arrival("a", 0.0, 501)], setup) == 0, "lost even alone"
    assert max_attained([arrival("a", 0.0, 5000, "batch"), arrival("b", 0.0, 500)], setup) == 2, "batch can wait"
    assert max_attained([], setup) == 0


def test_only_those_that_count_are_counted() -> None:
    both = [arrival("a", 0.0, 400), arrival("b", 0.0, 1800, "standard")]
    assert max_attained(both, Setup(PLAIN)) == 1
    assert max_attained(both, Setup(PLAIN), lambda one: one.service_class == "interactive") == 1


def test_a_prefix_of_the_same_tenant_may_be_in_the_cache() -> None:
    long = [arrival("a", 0.0, 1024, "batch", hash_ids=(1, 2)), arrival("b", 9.0, 1024, hash_ids=(1, 3))]
    assert max_attained(long, Setup(PLAIN), lambda one: one.request_id == "b") == 0, "512 tokens are left: 0.512 s"
    shorter = [long[0], arrival("b", 9.0, 1000, hash_ids=(1, 3))]
    assert max_attained(shorter, Setup(PLAIN), lambda one: one.request_id == "b") == 1
    stranger = [long[0], arrival("b", 9.0, 1000, tenant="x", hash_ids=(1, 3))]
    assert max_attained(stranger, Setup(PLAIN), lambda one: one.request_id == "b") == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), load=st.floats(0.5, 4.0), policy=st.sampled_from(["fcfs", "edf", "qoserve", "slo"]))
def test_no_policy_beats_it(seed: int, load: float, policy: str) -> None:
    rng, now, arrivals = random.Random(seed), 0.0, []
    for i in range(40):
        now += rng.expovariate(load)
        promise = rng.choice(BUILT_IN).name
        arrivals.append(Arrival(f"r{i}", now, rng.randint(10, 1500), rng.randint(1, 30), 100, promise, f"t{i % 2}"))
    setup = Setup(
        Machine(1e-3, 5e-3, 1e-3, 1e-7, 1e-8, 50_000, "slow", noise=0.0), max_num_running=16, max_step_tokens=256
    )
    attained = sum(one.slo_attained for one in replay(policy, arrivals, setup).ended)
    assert attained <= max_attained(arrivals, setup)
