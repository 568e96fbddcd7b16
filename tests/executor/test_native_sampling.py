"""Native draws against the definition in float64: the kept set, then the inverse of the cumulative distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from octavo.executor.flat import flatten
from octavo.executor.native_cache import NativeCache
from octavo.executor.native_sampling import NativeSampler
from octavo.executor.native_step import NativeStep, StepLimits, StepLogits
from octavo.executor.sampling.sampler import Sampler
from octavo.kernels.native import structs
from octavo.models.load import load_packed
from support import plans, tiny_models
from support.native_library import needs_native
from support.plans import new_request

VOCAB, ROWS = 5003, 32
OFF = 2**31 - 1


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_models.write(folder, tiny_models.llama(vocab_size=VOCAB, num_hidden_layers=1))
    packed = load_packed(folder, "stored")
    shape = structs.KvShape(structs.KvType.F32, ROWS, 16, packed.config.num_kv_heads, packed.config.head_dim)
    step = NativeStep(packed, NativeCache(shape, 1), StepLimits(ROWS, ROWS), 2)
    yield step
    step.close()


def with_logits(step: NativeStep, logits: np.ndarray) -> StepLogits:
    """Put ``logits`` where a step would have left its own."""
    rows = [plans.row(plans.new_request("r", [1]), 0, 1, [block]) for block in range(len(logits))]
    result = step.forward(flatten(rows, 16))
    result.logits[:, :VOCAB] = logits
    result.tokens[:] = np.nanargmax(np.where(np.isnan(logits), -np.inf, logits), axis=1)
    return result


def row(index: int, uniform: float, **how: float) -> tuple[float, ...]:
    values = {"top_p": 1.0, "temperature": 1.0, "min_p": 0.0, "top_k": OFF} | how
    return (uniform, values["top_p"], values["temperature"], values["min_p"], values["top_k"], index)


def reference(logits: np.ndarray, how: np.void) -> tuple[int, float]:
    """The token, and how near the random number came to a border (as a share of the whole)."""
    x = (logits.astype(np.float64) - logits.max()) / float(how["temperature"])
    weights = np.exp(x)
    keep = weights >= max(float(how["min_p"]), np.sort(weights)[-min(int(how["top_k"]), VOCAB)])
    if how["top_p"] < 1:
        order = np.argsort(-weights, kind="stable")
        order = order[keep[order]]
        running = np.cumsum(weights[order])
        last = order[min(np.searchsorted(running, float(how["top_p"]) * running[-1]), len(order) - 1)]
        keep &= weights >= weights[last]
    running = np.cumsum(weights * keep) / (weights * keep).sum()
    token = int(np.searchsorted(running, float(how["uniform"]), side="right"))
    return token, float(np.abs(running - float(how["uniform"])).min())


@needs_native
@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.3},
        {"temperature": 2.5},
        {"top_k": 1},
        {"top_k": 40},
        {"top_p": 0.9},
        {"top_p": 0.1},
        {"min_p": 0.2},
        {"top_k": 300, "top_p": 0.7, "min_p": 0.01, "temperature": 0.8},
    ],
)
def test_draws_are_what_the_definition_says(step, spread, how):
    rng = np.random.default_rng(int(spread * 100) + len(str(how)))
    logits = (rng.normal(0, spread, (ROWS, VOCAB))).astype(np.float32)
    logits[0] = np.round(logits[0])  # many ties
    rows = np.array([row(i, u, **how) for i, u in enumerate(rng.random(ROWS))], structs.SAMPLING_ROW)
    with_logits(step, logits)
    got = step.draw(rows)
    for i, token in enumerate(got):
        wanted, distance = reference(logits[i], rows[i])
        assert token == wanted or distance < 1e-5, (i, token, wanted, distance)


@needs_native
def test_what_is_cut_is_never_drawn(step):
    logits = np.full((1, VOCAB), -np.inf, np.float32)
    logits[0, [7, 11]] = 1.0, 0.5
    with_logits(step, logits)
    rows = np.array([row(0, u) for u in (0.0, 0.5, 0.62, 0.63, 0.999999999)], structs.SAMPLING_ROW)
    assert step.draw(rows).tolist() == [7, 7, 7, 11, 11]


@needs_native
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_rows_that_are_not_sound_say_so(step, poison):
    logits = np.zeros((2, VOCAB), np.float32)
    logits[0, 17] = poison
    result = with_logits(step, logits)
    if np.isinf(poison):
        result.tokens[0] = 17
    rows = np.array([row(0, 0.5), row(1, 0.5)], structs.SAMPLING_ROW)
    assert step.draw(rows)[0] == -1
    assert step.draw(rows)[1] >= 0


EDITED: list[dict[str, object]] = [
    {"temperature": 0.0, "frequency_penalty": 0.7, "logprobs": 4},
    {"logit_bias": {3: 5.0, VOCAB - 1: 9.0}, "min_tokens": 90, "logprobs": 0},
    {"top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3, "presence_penalty": 0.4},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 50},
    {"temperature": 0.0, "logprobs": 20, "logit_bias": {7: -100.0}},
    {"top_k": 9, "logprobs": 1, "repetition_penalty": 0.5, "min_tokens": 99, "frequency_penalty": -1.0},
]


@needs_native
def test_edits_and_logprobs_are_those_of_the_torch_sampler(step):
    rng = np.random.default_rng(8)
    native, other, differ = NativeSampler(step, VOCAB), Sampler(), 0
    requests = [
        new_request(str(i), rng.integers(0, VOCAB, 60).tolist(), 40, frozenset({5, 6}), seed=i, **EDITED[i % 7])
        for i in range(ROWS)
    ]
    for _ in range(6):  # texts grow, and with them what the penalties count
        logits = np.round(rng.normal(0, 3, (ROWS, VOCAB)) * 4).astype(np.float32) / 4  # many equals
        got = native.sample(with_logits(step, logits), requests)
        wanted = other.sample(torch.tensor(logits), requests)
        for request in requests:
            ours, theirs = got[request.request_id], wanted[request.request_id]
            assert ours.error is None and (ours.logprobs is None) == (theirs.logprobs is None)
            if ours.token_ids != theirs.token_ids:  # a random number next to a border
                differ += 1
            elif ours.logprobs is not None and theirs.logprobs is not None:
                assert ours.logprobs[0].logprob == pytest.approx(theirs.logprobs[0].logprob, abs=1e-5)
                assert [token for token, _ in ours.logprobs[0].top] == [token for token, _ in theirs.logprobs[0].top]
                np.testing.assert_allclose(*([p for _, p in e.logprobs[0].top] for e in (ours, theirs)), atol=1e-5)
            request.token_ids.append(ours.token_ids[0])
    assert differ <= 1


@needs_native
@pytest.mark.parametrize(
    ("poison", "words"),
    [(np.nan, f"1 of {VOCAB} are NaN or infinite"), (np.inf, f"1 of {VOCAB}"), (-np.inf, "no token is left")],
)
@pytest.mark.parametrize("params", EDITED, ids=str)
def test_a_broken_row_fails_alone(step, poison, words, params):
    logits = np.random.default_rng(0).normal(0, 2, (4, VOCAB)).astype(np.float32)
    requests = [new_request(str(i), [1, 2], seed=i, **params) for i in range(4)]
    expected = NativeSampler(step, VOCAB).sample(with_logits(step, logits), requests)
    logits[2, slice(None) if poison == -np.inf else 5] = poison
    result = with_logits(step, logits)
    if not np.isfinite(logits[2]).all():
        result.tokens[2] = -1  # as a step leaves it
    samples = NativeSampler(step, VOCAB).sample(result, requests)
    assert words in samples["2"].error and samples["2"].token_ids == ()
    for name in ("0", "1", "3"):
        assert samples[name] == expected[name]
