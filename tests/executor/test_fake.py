"""The fake executor: its tokens depend on the request alone, and it refuses broken plans."""

from __future__ import annotations

import pytest

from octavo.executor.fake import FakeExecutor
from octavo.executor.requests import RequestState
from octavo.types import Plan, PlannedRequest
from support.plans import introduce, new_request, plan_of


def whole(request: RequestState) -> PlannedRequest:
    return introduce(request, 0, len(request.token_ids), range(8), True)


def generate(executor: FakeExecutor, requests: list[RequestState], num_tokens: int) -> list[list[int]]:
    for _ in range(num_tokens):
        samples = executor.launch(plan_of(*map(whole, requests))).result().samples
        for request in requests:
            request.token_ids.extend(samples[request.request_id].token_ids)
    return [request.token_ids[request.num_prompt_tokens :] for request in requests]


def test_tokens_do_not_depend_on_the_batch() -> None:
    executor = FakeExecutor(512, seed=3)
    alone = generate(executor, [new_request("a", [1, 2, 3], temperature=0.0)], 20)[0]
    together = generate(executor, [new_request(str(i), [i, 2, 3], temperature=0.0) for i in range(5)], 20)
    assert together[1] == alone
    assert len({tuple(tokens) for tokens in together}) == 5
    assert all(0 <= token < 512 for tokens in together for token in tokens)


def test_seed_matters_only_when_sampling() -> None:
    executor = FakeExecutor(512)
    sampled = [generate(executor, [new_request("a", [1], seed=seed)], 8) for seed in (1, 2, 1)]
    greedy = [generate(executor, [new_request("a", [1], seed=seed, temperature=0.0)], 8) for seed in (1, 2)]
    assert sampled[0] == sampled[2] != sampled[1]
    assert greedy[0] == greedy[1]


def test_min_tokens_keeps_stop_ids_away() -> None:
    stop_ids = frozenset(range(8))
    tokens = generate(FakeExecutor(10), [new_request("a", [1], stop_ids=stop_ids, min_tokens=30)], 60)[0]
    assert set(tokens[:30]) <= {8, 9}
    assert set(tokens[30:]) & stop_ids


def test_logprobs_and_step_time() -> None:
    result = FakeExecutor(100, step_time_s=0.01).launch(plan_of(whole(new_request("a", [5], logprobs=3)))).result()
    (entry,) = result.samples["a"].logprobs or ()
    assert entry.token_id == entry.top[0][0] == result.samples["a"].token_ids[0]
    assert len(entry.top) == 3
    assert [p for _, p in entry.top] == sorted((p for _, p in entry.top), reverse=True)
    assert result.step_time_s >= 0.01


@pytest.mark.parametrize(
    ("start", "num_tokens", "num_blocks", "samples"),
    [(0, 0, 4, False), (0, 6, 4, True), (0, 5, 1, True), (0, 5, 2, False), (0, 4, 2, True), (-1, 6, 4, True)],
)
def test_broken_plans_are_refused(start: int, num_tokens: int, num_blocks: int, samples: bool) -> None:
    planned = introduce(new_request("a", [1] * 5), start, num_tokens, range(num_blocks), samples)
    with pytest.raises(ValueError, match="bad plan for a"):
        FakeExecutor(10, block_size=4).launch(plan_of(planned))


def test_wrong_token_count_is_refused() -> None:
    with pytest.raises(ValueError, match="num_tokens is 9"):
        FakeExecutor(10).launch(Plan(step=0, requests=(whole(new_request("a", [1])),), num_tokens=9))


def test_a_request_that_no_plan_introduced_is_refused() -> None:
    with pytest.raises(ValueError, match="step 3 plans a, which no plan has introduced"):
        FakeExecutor(10).launch(Plan(3, (PlannedRequest("a", 0, 1, True),), 1))


def test_steps_elsewhere_follow_each_other_without_a_pause() -> None:
    executor = FakeExecutor(100, step_time_s=0.02, max_in_flight=2)
    request = new_request("a", [5])
    first = executor.launch(plan_of(whole(request)))
    second = executor.launch(Plan(1, (PlannedRequest("a", 1, 1, True),), 1))  # the token that the first one samples
    alone = generate(FakeExecutor(100), [new_request("a", [5])], 2)[0]
    assert [*first.result().samples["a"].token_ids, *second.result().samples["a"].token_ids] == alone
    assert executor.idle_s == 0.0
