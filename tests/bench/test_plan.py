"""Load plans: the same seed gives the same bytes, parts do not disturb each other, limits hold, broken plans are refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.bench.plan import PlanOptions, check, digest, encode, make_plan
from octavo.bench.prompts import PromptOptions
from octavo.bench.types import BenchRequest, LoadPlan
from octavo.errors import ConfigError

workloads = st.sampled_from(
    [
        "chat",
        "code",
        "mixed:tenants=5",
        "multi-turn",
        "shared-prefix:prefix=20,groups=2",
        "synthetic:prompt=uniform(1;40)",
        "trace:azure-code",
        "trace:mooncake-conv,scale=0.02",
        "trace:sharegpt,start=5",
    ]
)
arrivals = st.sampled_from(
    [
        "constant:rate=5",
        "poisson:rate=7",
        "gamma:rate=7,burstiness=0.3",
        "ramp:from=1,to=9,over=20",
        "stepped:rates=3;9,hold=5",
        "diurnal:period=9",
        "closed:users=3,think=0.5",
    ]
)


@settings(max_examples=60, deadline=None)
@given(workloads, arrivals, st.integers(0, 2**40), st.integers(1, 40), st.floats(2, 30))
def test_any_plan_is_complete_and_repeatable(
    workload: str, pace: str, seed: int, num_requests: int, duration_s: float
) -> None:
    options = PlanOptions(
        seed=seed,
        num_requests=num_requests,
        duration_s=duration_s,
        prompts=PromptOptions(max_prompt_tokens=100, max_output_tokens=30),
    )
    try:
        plan = make_plan(workload, pace, options)
    except ConfigError as error:
        assert "no arrival falls into the duration" in error.message
        return
    check(plan)
    assert encode(plan) == encode(make_plan(workload, pace, options))
    assert len(plan.requests) <= num_requests
    for request in plan.requests:
        assert len(request.token_ids or []) <= 100
        assert 1 <= request.max_tokens <= 30
    assert msgspec.json.decode(encode(plan), type=LoadPlan) == plan
    # the specs in the plan make the plan: defaults are written out
    assert digest(make_plan(plan.workload, plan.arrivals, options)) == digest(plan)


def test_the_digest_is_that_of_the_stored_bytes_and_the_same_in_another_process() -> None:
    plan = make_plan("mixed", "gamma:rate=9", PlanOptions(seed=7, num_requests=50))
    assert digest(plan) == hashlib.sha256(encode(plan)).hexdigest()
    code = (
        "from octavo.bench.plan import *\n"
        "print(digest(make_plan('mixed', 'gamma:rate=9', PlanOptions(seed=7, num_requests=50))))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == digest(plan)


def test_parts_have_their_own_random_streams() -> None:
    base = make_plan("mixed", "poisson:rate=5", PlanOptions(seed=1, num_requests=40))
    other_times = make_plan("mixed", "gamma:rate=9", PlanOptions(seed=1, num_requests=40))
    assert base.requests == other_times.requests and base.send_s != other_times.send_s
    other_work = make_plan("chat", "poisson:rate=5", PlanOptions(seed=1, num_requests=40))
    assert base.send_s == other_work.send_s
    other_seed = make_plan("mixed", "poisson:rate=5", PlanOptions(seed=2, num_requests=40))
    assert base.requests != other_seed.requests and base.send_s != other_seed.send_s
    longer = make_plan("mixed", "poisson:rate=5", PlanOptions(seed=1, num_requests=80))
    assert longer.requests[:40] == base.requests and longer.send_s[:40] == base.send_s


@pytest.mark.parametrize("workload", ["synthetic", "shared-prefix:prefix=20", "trace:mooncake-conv,scale=0.02", "chat"])
def test_a_repeat_has_the_same_times_and_lengths_and_fresh_tokens(workload: str) -> None:
    def run(repeat: int) -> LoadPlan:
        prompts = PromptOptions(repeat=repeat, form="tokens")
        return make_plan(workload, "poisson:rate=9", PlanOptions(num_requests=30, prompts=prompts))

    first, second = run(0), run(1)
    assert first.send_s == second.send_s
    assert second.notes[-1] == "repeat 1: same times and lengths, fresh tokens"
    for one, other in zip(first.requests, second.requests, strict=True):
        assert one.max_tokens == other.max_tokens and len(one.token_ids or []) == len(other.token_ids or [])
    equal = [
        one for one, other in zip(first.requests, second.requests, strict=True) if one.token_ids == other.token_ids
    ]
    assert not equal


def test_a_closed_loop_has_users_and_no_times() -> None:
    plan = make_plan("synthetic", "closed:users=4,think=0.5", PlanOptions(num_requests=10))
    assert (plan.concurrency, plan.think_s, plan.send_s) == (4, 0.5, [None] * 10)
    timed = make_plan("synthetic", "closed:users=4", PlanOptions(duration_s=2.0))
    assert (len(timed.requests), timed.duration_s) == (4 * 2 * 10, 2.0)
    crowd = make_plan("synthetic:prompt=8", "closed:users=999", PlanOptions(duration_s=9, max_requests=50))
    assert len(crowd.requests) == 50
    assert crowd.notes == ["planned 50 requests (400 prompt tokens); the run ends with them if it comes so far"]
    full = make_plan("synthetic:prompt=10", "closed:users=9", PlanOptions(duration_s=9, max_plan_tokens=200))
    assert len(full.requests) == 21
    assert full.notes == ["planned 21 requests (210 prompt tokens); the run ends with them if it comes so far"]


def test_a_trace_is_replayed_at_its_own_times_unless_a_rate_is_given() -> None:
    plan = make_plan("trace:azure-code", options=PlanOptions(speed=10, duration_s=16))
    assert plan.arrivals == "trace:speed=10"
    assert plan.send_s[0] == 0 and 400 < len(plan.requests) < 556
    # the burst of the last minute: most arrivals fall into a third of the time
    assert sum(one is not None and one > 11 for one in plan.send_s) > 0.8 * len(plan.send_s)
    paced = make_plan("trace:azure-code", options=PlanOptions(rate=20, num_requests=5))
    assert paced.arrivals == "poisson:rate=20"
    ended = make_plan("trace:sharegpt", "poisson:rate=50", PlanOptions(duration_s=60))
    assert len(ended.requests) == 300
    assert ended.notes == ["the trace ended after 300 requests; the plan ends there"]


@pytest.mark.parametrize(
    ("workload", "pace", "options", "expected"),
    [
        ("chat", None, {"num_requests": 5}, "need a rate: give --rate 4"),
        ("chat", "poisson:rate=5", {}, "the run has no end: give --duration or --num-requests"),
        ("chat", "closed:users=5", {}, "the run has no end"),
        ("chat", "trace", {}, "this workload has none"),
        ("trace:azure-conv", None, {"rate": 5.0, "speed": 2.0, "num_requests": 3}, "--speed belongs to the replay"),
        ("trace:azure-conv,start=5000", None, {}, "the plan holds no request"),
        ("chat", "poisson:rate=0.001", {"duration_s": 0.1}, "no arrival falls into the duration"),
        ("chat", "constant:rate=100", {"duration_s": 60.0, "max_requests": 500}, "more than 500 requests"),
        ("trace:azure-code", None, {"max_requests": 500}, "more than 500 requests"),
        ("synthetic:prompt=100", "constant:rate=9", {"num_requests": 99, "max_plan_tokens": 500}, "the limit is 500"),
    ],
)
def test_what_cannot_be_planned(workload: str, pace: str | None, options: dict[str, float], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(workload, pace, PlanOptions(**options))  # type: ignore[arg-type]
    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"seed": -1}, "seed = -1: expected 0 or more"),
        ({"duration_s": 0.0}, "duration = 0 s: expected more than zero"),
        ({"duration_s": float("nan")}, "duration = nan s"),
        ({"num_requests": 0}, "0 requests: expected 1 to 20000"),
        ({"num_requests": 20_001}, "20001 requests: expected 1 to 20000"),
    ],
)
def test_bad_options(options: dict[str, float], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PlanOptions(**options)  # type: ignore[arg-type]
    assert expected in caught.value.message


def test_stepped_and_bounded_ramps_end_by_themselves() -> None:
    for pace in ("stepped:rates=5;10,hold=10", "ramp:from=5,to=10,over=20"):
        plan = make_plan("synthetic:prompt=4", pace)
        assert 100 < len(plan.requests) < 220 and (plan.send_s[-1] or 0) < 20


def broken(**changes: object) -> LoadPlan:
    requests = [BenchRequest(index=i, text="x") for i in range(3)]
    plan = LoadPlan(workload="w", arrivals="a", seed=0, requests=requests, send_s=[0.0, 1.0, 2.0], duration_s=3.0)
    return msgspec.structs.replace(plan, **changes)


def changed(place: int, **changes: object) -> list[BenchRequest]:
    requests = broken().requests.copy()
    requests[place] = msgspec.structs.replace(requests[place], **changes)
    return requests


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"requests": []}, "the plan holds no request"),
        ({"send_s": [0.0]}, "3 requests, 1 send times"),
        ({"send_s": [0.0, 2.0, 1.0]}, "request 2: send time 1.0 s after 2.0 s"),
        ({"send_s": [0.0, float("nan"), 1.0]}, "request 1: send time nan"),
        ({"send_s": [-1.0, 0.0, 1.0]}, "request 0: send time -1.0"),
        ({"send_s": [0.0, 1.0, 3.0]}, "in a run of 3.0 s"),
        ({"send_s": [0.0, None, 1.0]}, "request 1: send time None"),
        ({"concurrency": 2}, "request 0: send time 0.0"),
        ({"requests": changed(1, index=5)}, "request 1 has index 5"),
        ({"requests": changed(1, text=None)}, "request 1 has not exactly one"),
        ({"requests": changed(1, token_ids=[1])}, "request 1 has not exactly one"),
        ({"requests": changed(1, max_tokens=0)}, "request 1: max_tokens = 0"),
        ({"requests": changed(1, think_s=-1.0)}, "think_s = -1"),
        ({"requests": changed(1, after=1), "send_s": [0.0, None, 1.0]}, "request 1 follows request 1"),
        ({"requests": changed(1, after=0)}, "request 1: send time 1.0"),
    ],
)
def test_a_broken_plan_is_refused(changes: dict[str, object], expected: str) -> None:
    check(broken())
    with pytest.raises(ConfigError) as caught:
        check(broken(**changes))
    assert expected in caught.value.message
