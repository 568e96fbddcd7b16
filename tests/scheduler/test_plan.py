"""Plans as messages: what a request costs on the wire, and what an executor is told of it when."""

from __future__ import annotations

import msgspec

from octavo.types import Plan, PlannedRequest, SamplingParams
from support.scheduling import make_request, make_scheduler, run_step


def plans_of_a_long_request(num_steps: int) -> list[Plan]:
    scheduler = make_scheduler(num_blocks=8000, block_size=16, max_step_tokens=120_000)
    params = SamplingParams(temperature=0.7, top_p=0.9, seed=3, stop=("a", "b"))
    scheduler.add(make_request("chatcmpl-148a42d23675459a91123bca9fc10ffb", [70_000] * 100_000, 1000, params=params), 0)
    return [run_step(scheduler, float(i), check=False)[0] for i in range(num_steps)]


def test_a_decoding_request_costs_under_a_hundred_bytes_however_long_it_is() -> None:
    first, *decodes = plans_of_a_long_request(40)
    assert len(msgspec.msgpack.encode(first)) > 300_000, "its tokens and blocks, once"
    assert max(len(msgspec.msgpack.encode(plan.requests)) for plan in decodes) < 100


def test_a_plan_comes_back_from_the_wire_as_it_was() -> None:
    for plan in plans_of_a_long_request(18):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


def test_parameters_at_first_sight_only_and_blocks_as_they_come() -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=4)
    scheduler.add(make_request("a", [7] * 6, 8), 0.0)
    told = [run_step(scheduler, float(i))[0].requests[0] for i in range(8)]
    assert [share.new is not None for share in told] == [True] + [False] * 7
    assert told[0].new is not None and told[0].new.token_ids == (7,) * 6
    assert [len(share.new_block_ids) for share in told] == [2, 0, 0, 1, 0, 0, 0, 1]


def test_a_preempted_request_is_introduced_again_with_its_output() -> None:
    scheduler = make_scheduler(num_blocks=4, block_size=4, prefix_cache=False)
    for name in "ab":
        scheduler.add(make_request(name, [7] * 7, 9), 0.0)
    shares: dict[str, list[PlannedRequest]] = {"a": [], "b": []}
    forgotten: list[str] = []
    for step in range(40):
        if scheduler.has_work:
            plan = run_step(scheduler, float(step))[0]
            forgotten += plan.forgotten
            for share in plan.requests:
                shares[share.request_id].append(share)
    (_, again) = (share.new for share in shares["b"] if share.new is not None)
    assert again is not None and again.num_prompt_tokens == 7 and len(again.token_ids) > 7
    assert forgotten == ["b", "a"], "b gave way, then a ended; nobody plans after b's end"
