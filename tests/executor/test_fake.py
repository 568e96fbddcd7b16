"""The fake executor: its tokens depend on the request alone, and it refuses broken plans."""

from __future__ import annotations

import pytest

from octavo.executor.fake import FakeExecutor
from octavo.types import Plan, PlannedRequest, Request, SamplingParams


def new_request(name: str, tokens: list[int], stop_ids: frozenset[int] = frozenset(), **params: object) -> Request:
    return Request(
        request_id=name,
        token_ids=list(tokens),
        num_prompt_tokens=len(tokens),
        params=SamplingParams(**params),  # type: ignore[arg-type]
        max_tokens=64,
        stop_ids=stop_ids,
        arrival_s=0.0,
    )


def whole(request: Request, start: int = 0) -> PlannedRequest:
    return PlannedRequest(request, start, len(request.token_ids) - start, list(range(8)), True)


def plan_of(*planned: PlannedRequest) -> Plan:
    return Plan(step=0, requests=planned, num_tokens=sum(p.num_tokens for p in planned))


def generate(executor: FakeExecutor, requests: list[Request], num_tokens: int) -> list[list[int]]:
    for _ in range(num_tokens):
        samples = executor.run(plan_of(*map(whole, requests))).samples
        for request in requests:
            request.token_ids.extend(samples[request.request_id].token_ids)
    return [request.output_token_ids for request in requests]


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
    tokens = generate(FakeExecutor(10), [new_request("a", [1], stop_ids, min_tokens=30)], 60)[0]
    assert set(tokens[:30]) <= {8, 9}
    assert set(tokens[30:]) & stop_ids


def test_logprobs_and_step_time() -> None:
    result = FakeExecutor(100, step_time_s=0.01).run(plan_of(whole(new_request("a", [5], logprobs=3))))
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
    planned = PlannedRequest(new_request("a", [1] * 5), start, num_tokens, list(range(num_blocks)), samples)
    with pytest.raises(ValueError, match="bad plan for a"):
        FakeExecutor(10, block_size=4).run(plan_of(planned))


def test_wrong_token_count_is_refused() -> None:
    with pytest.raises(ValueError, match="num_tokens is 9"):
        FakeExecutor(10).run(Plan(step=0, requests=(whole(new_request("a", [1])),), num_tokens=9))
