"""The native executor behind the real scheduler: the same texts whatever is cached, preempted, chunked, batched or drafted."""

from __future__ import annotations

from array import array
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.executor.native_cache import NativeCache
from octavo.executor.native_executor import NativeExecutor
from octavo.executor.native_sampling import verified
from octavo.executor.native_step import NativeStep, StepLimits
from octavo.executor.prompt_lookup import follow_up
from octavo.executor.requests import RequestState
from octavo.kernels.native import structs
from octavo.models.load import load_packed
from octavo.types import Request, SamplingParams
from support import executor_tiny
from support.native_library import needs_native
from support.plans import introduce, new_request, plan_of

BLOCK_SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    executor_tiny.write_tiny_llama(folder)
    return folder


@contextmanager
def native(folder, *, num_draft_tokens: int = 0, num_blocks: int = 200):
    packed = load_packed(folder, "stored")
    shape = structs.KvShape(
        structs.KvType.BF16, num_blocks, BLOCK_SIZE, packed.config.num_kv_heads, packed.config.head_dim
    )
    step = NativeStep(packed, NativeCache(shape, packed.config.num_layers), StepLimits(512, 64), 2)
    executor = NativeExecutor(step, BLOCK_SIZE, num_draft_tokens)
    yield executor
    executor.close()


def requests(*, temperature: float, num: int = 8, length: int = 40) -> list[Request]:
    rng = np.random.default_rng(5)
    shared = rng.integers(0, executor_tiny.VOCAB_SIZE, 33).tolist()
    made = []
    for i in range(num):
        tail = rng.integers(0, executor_tiny.VOCAB_SIZE, 3 + 7 * i).tolist()
        tokens = (shared if i % 2 else []) + tail
        params = SamplingParams(temperature=temperature, seed=i, top_p=(1.0, 0.8)[i % 2], top_k=(0, 20)[i % 3 == 0])
        made.append(Request(f"r{i}", tokens, len(tokens), params, length, frozenset(), 0.0, sequence_number=i))
    return made


@needs_native
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_texts_in_any_circumstances(folder, temperature):
    wanted = {}
    with native(folder) as executor:
        for request in requests(temperature=temperature):
            wanted |= executor_tiny.run(executor, (200, BLOCK_SIZE), [request]).outputs
    assert all(len(output) == 40 for output in wanted.values())
    with native(folder) as executor:
        together = executor_tiny.run(executor, (200, BLOCK_SIZE), requests(temperature=temperature), budget=24)
    assert together.outputs == wanted and together.num_chunks and together.max_batch == 8 and together.num_cached_tokens
    with native(folder, num_blocks=14) as executor:
        tight = executor_tiny.run(executor, (14, BLOCK_SIZE), requests(temperature=temperature))
    assert tight.outputs == wanted and tight.num_preempted
    with native(folder, num_draft_tokens=5) as executor:
        for request in requests(temperature=temperature):
            alone = executor_tiny.run(executor, (200, BLOCK_SIZE), [request]).outputs
            assert alone == {request.request_id: wanted[request.request_id]}
        both = executor_tiny.run(executor, (200, BLOCK_SIZE), requests(temperature=temperature), running=2)
        assert both.outputs == wanted


@needs_native
def test_right_drafts_are_taken(folder):
    """A greedy text that repeats itself is soon drafted right, and then several tokens come at once."""
    request = requests(temperature=0.0, num=1, length=200)[0]
    with native(folder, num_draft_tokens=5) as executor:
        blocks = list(range(20))
        tokens, accepted, drafted, steps = list(request.token_ids), 0, 0, 0
        computed = 0
        while len(tokens) < 180:
            now = RequestState("r", tokens, request.num_prompt_tokens, request.params, 200)
            share = introduce(now, computed, len(tokens) - computed, blocks, True, num_draft_tokens=5)
            result = executor.launch(plan_of(share)).result()
            sample = result.samples["r"]
            computed = len(tokens) + sample.num_computed
            tokens = tokens + list(sample.token_ids)
            accepted, drafted, steps = (
                accepted + result.num_accepted_tokens,
                drafted + result.num_draft_tokens,
                steps + 1,
            )
    assert 0 < accepted <= drafted
    assert steps + accepted == len(tokens) - len(request.token_ids)


@needs_native
def test_a_broken_request_fails_alone(folder):
    good, bad = requests(temperature=0.0, num=2)
    bad.token_ids[0] = executor_tiny.VOCAB_SIZE
    with native(folder) as executor:
        rows = [
            introduce(new_request(r.request_id, r.token_ids), 0, len(r.token_ids), range(i * 9, i * 9 + 9), True)
            for i, r in enumerate((good, bad))
        ]
        samples = executor.launch(plan_of(*rows)).result().samples
    assert samples["r0"].error is None and len(samples["r0"].token_ids) == 1
    assert "bad_token" in samples["r1"].error


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 5))
def test_a_draft_is_what_followed_the_last_time(tokens, num_tokens):
    draft = follow_up(array("i", tokens), num_tokens)
    assert len(draft) <= num_tokens
    if not draft:
        return
    for length in (4, 3, 2):  # the longest end that stood somewhere before, at its last place
        end = tokens[-length:]
        places = [i for i in range(len(tokens) - length) if tokens[i : i + length] == end]
        if len(tokens) > length and places:
            start = places[-1] + length
            assert list(draft) == tokens[start : start + num_tokens]
            return
    raise AssertionError("a draft without a match")


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=6), st.lists(st.integers(0, 3), max_size=5))
def test_what_stands_is_the_longest_right_draft_and_one_more(tokens, draft):
    draft = tuple(draft[: len(tokens) - 1])
    tokens = [abs(tokens[0]), *tokens[1 : len(draft) + 1]]
    stands = verified(tokens, draft)
    assert stands == tuple(tokens[: len(stands)]) and stands
    assert stands[:-1] == draft[: len(stands) - 1] and -1 not in stands
    is_longest = (
        len(stands) == len(tokens) or draft[len(stands) - 1] != tokens[len(stands) - 1] or tokens[len(stands)] < 0
    )
    assert is_longest
