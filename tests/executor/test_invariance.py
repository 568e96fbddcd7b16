"""The same request gives the same tokens alone, in a batch, in chunks, from a cached prefix and after preemption."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from octavo.executor.requests import RequestState
from octavo.executor.torch_executor import CacheShape, TorchExecutor
from octavo.models.load import load_model
from octavo.models.transformer import Transformer
from octavo.types import Request, SamplingParams
from support.executor_tiny import VOCAB_SIZE, Run, run, write_tiny_llama
from support.plans import introduce, new_request, plan_of

CPU = torch.device("cpu")
NUM_OUTPUT = 20
KINDS: list[dict[str, object]] = [
    {"temperature": 0.0},
    {"temperature": 0.8},
    {"top_k": 20, "top_p": 0.9},
    {"temperature": 0.0, "repetition_penalty": 1.3, "frequency_penalty": 0.2},
    {"min_p": 0.05, "presence_penalty": 0.6},
    {"temperature": 1.5, "top_p": 0.95, "min_tokens": 5, "logit_bias": {7: 2.0}},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Transformer:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_llama(folder)
    return load_model(folder, torch.float32, CPU)


def new_requests(count: int = 16, shared: int = 0) -> list[Request]:
    """Random prompts of 1 to 60 tokens behind ``shared`` common ones, with every kind of sampling."""
    rng = np.random.default_rng(7)
    prefix = rng.integers(0, VOCAB_SIZE, shared).tolist()
    prompts = [prefix + rng.integers(0, VOCAB_SIZE, rng.integers(1, 60)).tolist() for _ in range(count)]
    return [
        Request(
            request_id=f"r{i}",
            token_ids=list(prompt),
            num_prompt_tokens=len(prompt),
            params=SamplingParams(seed=i, **KINDS[i % len(KINDS)]),  # type: ignore[arg-type]
            max_tokens=NUM_OUTPUT,
            stop_ids=frozenset(),
            arrival_s=0.0,
        )
        for i, prompt in enumerate(prompts)
    ]


def new_executor(model: Transformer, num_blocks: int, block_size: int, kv_dtype: torch.dtype) -> TorchExecutor:
    executor = TorchExecutor(model, CacheShape(num_blocks, block_size, kv_dtype), CPU)
    executor.warm_up()
    return executor


def alone(model: Transformer, requests: list[Request], kv_dtype: torch.dtype) -> dict[str, list[int]]:
    """Every request by itself, in a cache of its own."""
    outputs: dict[str, list[int]] = {}
    for request in requests:
        outputs |= run(new_executor(model, 32, 8, kv_dtype), (32, 8), [request]).outputs
    return outputs


@pytest.mark.parametrize("kv_dtype", [torch.float32, torch.float16], ids=str)
def test_in_a_batch_of_16_in_any_chunks(model: Transformer, kv_dtype: torch.dtype) -> None:
    expected = alone(model, new_requests(), kv_dtype)
    assert {len(tokens) for tokens in expected.values()} == {NUM_OUTPUT}
    assert len({tuple(tokens) for tokens in expected.values()}) == 16
    for block_size, budget in ((8, 512), (5, 17), (1, 23), (16, 31)):
        num_blocks = 16 * 80 // block_size
        result = run(
            new_executor(model, num_blocks, block_size, kv_dtype),
            (num_blocks, block_size),
            new_requests(),
            budget=budget,
        )
        assert result.outputs == expected, f"{block_size=} {budget=}"
        assert result.max_batch == 16 if budget > 40 else result.max_batch >= 8
        assert (result.num_chunks > 10) == (budget < 40)


def test_behind_a_shared_prefix(model: Transformer) -> None:
    expected = alone(model, new_requests(12, shared=45), torch.float32)
    executor = new_executor(model, 200, 8, torch.float32)
    result = run(executor, (200, 8), new_requests(12, shared=45), budget=64, running=3)
    assert result.num_cached_tokens >= 9 * 40
    assert result.outputs == expected


def test_after_preemption(model: Transformer) -> None:
    expected = alone(model, new_requests(), torch.float32)
    executor = new_executor(model, 24, 4, torch.float32)
    result = run(executor, (24, 4), new_requests(), budget=29)
    assert result.num_preempted >= 5
    assert result.outputs == expected


@pytest.mark.parametrize("in_flight", [2, 3])
def test_launched_before_the_steps_before_are_committed(model: Transformer, in_flight: int) -> None:
    """Penalties and seeds see the tokens that the scheduler does not know yet; memory runs out, chunks are in flight."""
    expected = alone(model, new_requests(), torch.float32)
    for num_blocks, block_size, budget in ((200, 8, 512), (24, 4, 29)):
        executor = new_executor(model, num_blocks, block_size, torch.float32)
        result = run(executor, (num_blocks, block_size), new_requests(), budget=budget, in_flight=in_flight)
        assert result.outputs == expected
        assert (result.num_preempted > 0) == (num_blocks == 24)


def by_hand(executor: TorchExecutor, request: RequestState, chunks: list[int], blocks: list[int]) -> None:
    """Compute the known tokens in the given chunks, block table ``blocks``, and append the sampled token."""
    start = 0
    for chunk in chunks:
        samples = start + chunk == len(request.token_ids)
        result = executor.launch(plan_of(introduce(request, start, chunk, blocks, samples))).result()
        assert result.samples.keys() == ({request.request_id} if samples else set())
        start += chunk
    request.token_ids.extend(result.samples[request.request_id].token_ids)


def test_chunks_and_scattered_blocks_by_hand(model: Transformer) -> None:
    executor, rng = new_executor(model, 64, 4, torch.float32), np.random.default_rng(3)
    prompt = rng.integers(0, VOCAB_SIZE, 41).tolist()
    tokens = set()
    for _ in range(12):
        cuts = sorted(rng.choice(np.arange(1, 41), rng.integers(0, 12), replace=False).tolist())
        chunks = np.diff([0, *cuts, 41]).tolist()
        request = new_request("a", prompt, seed=5, temperature=1.2)
        by_hand(executor, request, chunks, rng.permutation(64)[:11].tolist())
        tokens.add(request.token_ids[-1])
    assert len(tokens) == 1


def test_the_run_helper_would_notice(model: Transformer) -> None:
    """Another seed gives other tokens: the comparisons above are not between constants."""
    requests = new_requests(2)
    changed = [r.params.seed for r in requests]
    first: Run = run(new_executor(model, 64, 8, torch.float32), (64, 8), requests)
    again = new_requests(2)
    again[1].params = SamplingParams(seed=(changed[1] or 0) + 100, temperature=0.8)
    second = run(new_executor(model, 64, 8, torch.float32), (64, 8), again)
    assert first.outputs["r0"] == second.outputs["r0"]
    assert first.outputs["r1"] != second.outputs["r1"]
