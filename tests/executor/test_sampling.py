"""The sampler against its slow reference: edits, cuts, draws, ties, seeds, broken rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from octavo.executor.requests import RequestState
from octavo.executor.sampling.choose import draw_tokens
from octavo.executor.sampling.edits import edit
from octavo.executor.sampling.history import History
from octavo.executor.sampling.parameters import SamplingBatch
from octavo.executor.sampling.sampler import Sampler
from octavo.executor.sampling.truncation import Truncation
from octavo.executor.sampling.uniform import request_seed, uniform
from octavo.types import SamplingParams
from support.executor_reference import border_distance, distribution, edited_logits
from support.plans import new_request

INF = float("inf")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def sample_row(row: np.ndarray, request: RequestState) -> int:
    (token,) = Sampler().sample(torch.tensor(row[None], dtype=torch.float32), [request])[request.request_id].token_ids
    return token


def drawn_frequencies(logits: np.ndarray, p: SamplingParams, num_draws: int) -> np.ndarray:
    """Shares of tokens over evenly spaced uniforms: the implemented distribution, exact to 1 / num_draws a token."""
    row = torch.tensor(logits, dtype=torch.float32)
    scaled = ((row - row.max()) / p.temperature).repeat(num_draws, 1)
    top_k = p.top_k if p.top_k > 0 else 2**31
    cuts = Truncation(
        torch.full((num_draws,), top_k),
        torch.full((num_draws,), p.min_p, dtype=torch.float64),
        torch.full((num_draws,), p.top_p, dtype=torch.float64),
    )
    grid = (torch.arange(num_draws, dtype=torch.float64) + 0.5) / num_draws
    return np.bincount(draw_tokens(scaled, cuts, grid).numpy(), minlength=len(logits)) / num_draws


CUTS = [
    {},
    {"temperature": 0.6},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 20},
    {"top_k": 63},
    {"top_k": 64},
    {"top_k": 150},
    {"top_k": -1, "top_p": 0.5},
    {"top_p": 0.9},
    {"top_p": 0.999, "temperature": 4.0},
    {"top_p": 1e-9},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"min_p": 0.001, "temperature": 5.0},
    {"top_k": 40, "min_p": 0.02, "top_p": 0.8, "temperature": 1.3},
    {"top_k": 120, "min_p": 0.01, "top_p": 0.95, "temperature": 2.0},
    {"min_p": 1e-4, "top_p": 0.99, "temperature": 3.0},
]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("vocab_size", [3, 64, 257, 1500])
def test_the_drawn_distribution_is_the_filtered_one(vocab_size: int, cuts: dict[str, float]) -> None:
    logits = np.random.default_rng(vocab_size).normal(0, 3, vocab_size).astype(np.float32)
    params = SamplingParams(**cuts)  # type: ignore[arg-type]
    expected = np.array(distribution(logits.tolist(), params))
    got = drawn_frequencies(logits, params, num_draws=1000)
    assert np.abs(got - expected).max() <= 1.01 / 1000
    assert not got[expected == 0].any()


@pytest.mark.parametrize(
    "cuts", [{"top_k": 10}, {"top_k": 64}, {"top_k": 130}, {"top_p": 0.5}, {"min_p": 0.3}], ids=str
)
def test_equals_of_the_last_kept_are_kept_however_many(cuts: dict[str, float]) -> None:
    logits = np.repeat(np.array([-8.0, 1.0, 2.0, -3.0], dtype=np.float32), 60)
    logits[[0, 100]] = 2.0
    params = SamplingParams(**cuts)  # type: ignore[arg-type]
    got = drawn_frequencies(logits, params, num_draws=6200)
    expected = np.array(distribution(logits.tolist(), params))
    assert np.abs(got - expected).max() <= 1.01 / 6200
    assert (got[expected > 1.01 / 6200] > 0).all()
    assert np.count_nonzero(expected) in (62, 121, 181)  # more than were asked for: the equals are in


@settings(max_examples=100, deadline=None)
@given(
    logits=st.lists(st.integers(-12, 12).map(lambda i: i / 2) | st.just(-INF), min_size=1, max_size=90),
    temperature=st.floats(0.1, 5),
    top_k=st.integers(-1, 100),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
)
def test_cuts_agree_with_the_reference_on_ties_and_masks(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    assume(max(logits) > -INF)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assume(border_distance(logits, params) > 1e-5)
    expected = np.array(distribution(logits, params))
    got = drawn_frequencies(np.array(logits), params, num_draws=250)
    assert np.abs(got - expected).max() <= 1.01 / 250
    assert not got[expected == 0].any()


@pytest.mark.parametrize("cuts", [{}, {"top_k": 12}, {"top_p": 0.8}, {"min_p": 0.1}, CUTS[-3]], ids=str)
def test_tokens_of_many_seeds_pass_a_chi_square_test(cuts: dict[str, float]) -> None:
    num_draws, logits = 4000, np.random.default_rng(5).normal(0, 1.5, 48).astype(np.float32)
    requests = [new_request(str(i), [1, 2], seed=i, **cuts) for i in range(num_draws)]
    samples = Sampler().sample(torch.tensor(logits).repeat(num_draws, 1), requests)
    counts = np.bincount([samples[request.request_id].token_ids[0] for request in requests], minlength=48)
    expected = num_draws * np.array(distribution(logits.tolist(), requests[0].params))
    kept = expected > 0
    assert not counts[~kept].any()
    chi_square = ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    freedom = kept.sum() - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 6  # about the 99.99 % quantile


request_lists = st.lists(st.integers(0, 29), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(
    prompt=request_lists,
    output=st.lists(st.integers(0, 29), max_size=40),
    repetition=st.floats(0.1, 3),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    bias=st.dictionaries(st.integers(0, 29), st.floats(-100, 100), max_size=5),
    min_tokens=st.integers(0, 60),
    stop_ids=st.frozensets(st.integers(0, 35), max_size=4),
    seed=st.integers(0, 2**32),
)
def test_edits_agree_with_the_reference(
    prompt: list[int],
    output: list[int],
    repetition: float,
    presence: float,
    frequency: float,
    bias: dict[int, float],
    min_tokens: int,
    stop_ids: frozenset[int],
    seed: int,
) -> None:
    base = np.random.default_rng(seed).normal(0, 3, (3, 36)).astype(np.float32)
    penalties = {"repetition_penalty": repetition, "presence_penalty": presence, "frequency_penalty": frequency}
    edited = new_request(
        "edited", prompt + output, len(prompt), stop_ids, logit_bias=bias, min_tokens=min_tokens, **penalties
    )
    plain = [new_request("before", [1], temperature=0.0), new_request("after", [1], temperature=0.0)]
    logits = torch.tensor(base)
    Sampler().sample(logits, [plain[0], edited, plain[1]])
    expected = np.array(edited_logits(base[1].tolist(), edited))
    np.testing.assert_allclose(logits[1].numpy(), expected, rtol=1e-5, atol=1e-4)
    assert (logits[0].numpy() == base[0]).all()
    assert (logits[2].numpy() == base[2]).all()
    batch = SamplingBatch.from_requests([plain[0], edited, plain[1]])
    edit(base, batch, History().advance(batch.at(batch.penalised)), lambda array: array)
    np.testing.assert_array_equal(base, logits.numpy(), "the same edits of a numpy array")


def test_history_counted_step_by_step_equals_one_counted_anew() -> None:
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 50, 30).tolist()
    growing = new_request("a", prompt, repetition_penalty=1.2)
    history = History()
    for step in range(200):
        growing.token_ids.append(int(rng.integers(0, 400)))
        (counts,) = history.advance([growing])
        if step % 37 == 0:
            (anew,) = History().advance([growing])
            assert dict(zip(counts.tokens.tolist(), counts.counts.tolist(), strict=True)) == dict(
                zip(anew.tokens.tolist(), anew.counts.tolist(), strict=True)
            )
    output = growing.token_ids[growing.num_prompt_tokens :]
    assert dict(zip(counts.tokens.tolist(), counts.counts.tolist(), strict=True)) == {
        token: output.count(token) for token in {*prompt, *output}
    }


def test_history_forgets_who_is_gone_and_is_not_fooled_by_an_id_used_again() -> None:
    history = History()
    history.advance([new_request(str(i), [1, 2, 3], 1, presence_penalty=1.0) for i in range(5)])
    again = new_request("0", [7, 8, 9], 1, presence_penalty=1.0)
    (counts,) = history.advance([again])
    assert counts.tokens.tolist() == [8, 9]
    assert len(history) == 1
    history.advance([])
    assert len(history) == 0


def test_greedy_takes_the_lowest_of_equal_ids() -> None:
    row = np.zeros(300, dtype=np.float32)
    row[[250, 7, 90]] = 2.0
    assert sample_row(row, new_request("a", [1], temperature=0.0)) == 7
    assert sample_row(row, new_request("a", [1], temperature=1e-7, top_p=0.5)) == 7


def test_a_low_temperature_is_greedy_and_does_not_overflow() -> None:
    row = np.random.default_rng(1).normal(0, 1e4, 500).astype(np.float32)
    for temperature in (0.0, 1e-300, 1e-5, 1e-3):
        assert sample_row(row, new_request("a", [1], temperature=temperature, seed=3)) == int(row.argmax())


MIXED: list[dict[str, object]] = [
    {"temperature": 0.0},
    {},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    {"top_p": 0.95},
    {"min_p": 0.02},
    {"temperature": 2.5, "top_p": 0.99},
    {"top_k": 500},
    {"top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3, "presence_penalty": 0.4},
    {"temperature": 0.0, "frequency_penalty": 0.3, "logprobs": 4},
    {"logit_bias": {3: 5.0}, "min_tokens": 30, "logprobs": 0},
]


def test_a_row_alone_gives_the_same_sample_as_in_any_batch() -> None:
    vocab_size, rng = 1000, np.random.default_rng(9)
    rows = torch.tensor(rng.normal(0, 3, (40, vocab_size)), dtype=torch.float32)
    requests = [
        new_request(str(i), rng.integers(0, vocab_size, 60).tolist(), 40, frozenset({5, 6}), seed=i, **MIXED[i % 10])
        for i in range(40)
    ]
    alone = [Sampler().sample(rows[i : i + 1].clone(), [requests[i]])[str(i)] for i in range(40)]
    for _ in range(10):
        chosen = rng.permutation(40)[: rng.integers(2, 40)]
        samples = Sampler().sample(rows[chosen].clone(), [requests[i] for i in chosen])
        assert [samples[str(i)].token_ids for i in chosen] == [alone[i].token_ids for i in chosen]
        for i in chosen:
            assert (samples[str(i)].logprobs is None) == (alone[i].logprobs is None)


def test_tiny_noise_in_the_logits_hardly_ever_changes_a_token() -> None:
    rng = np.random.default_rng(2)
    rows = torch.tensor(rng.normal(0, 3, (300, 800)), dtype=torch.float32)
    requests = [new_request(str(i), [1], seed=i, **MIXED[i % 8]) for i in range(300)]
    noisy = rows + torch.tensor(rng.uniform(-1e-6, 1e-6, (300, 800)), dtype=torch.float32)
    first, second = Sampler().sample(rows, requests), Sampler().sample(noisy, requests)
    assert sum(first[name].token_ids != second[name].token_ids for name in first) <= 1


@pytest.mark.parametrize(
    ("poison", "words"),
    [
        (lambda row: row.__setitem__(5, math.nan), "1 of 400 are NaN or infinite"),
        (lambda row: row.__setitem__(slice(None), math.nan), "400 of 400"),
        (lambda row: row.__setitem__(5, INF), "1 of 400"),
        (lambda row: row.__setitem__(slice(None), -INF), "no token is left"),
    ],
)
@pytest.mark.parametrize("params", MIXED[:4] + MIXED[8:], ids=str)
def test_a_broken_row_fails_alone(poison: object, words: str, params: dict[str, object]) -> None:
    rows = torch.tensor(np.random.default_rng(0).normal(0, 2, (4, 400)), dtype=torch.float32)
    requests = [new_request(str(i), [1, 2], seed=i, **params) for i in range(4)]
    expected = Sampler().sample(rows.clone(), requests)
    poison(rows[2])  # type: ignore[operator]
    samples = Sampler().sample(rows, requests)
    assert words in (samples["2"].error or "")
    assert samples["2"].token_ids == ()
    for name in ("0", "1", "3"):
        assert samples[name] == expected[name]


def test_a_mask_over_everything_is_an_error_of_that_request() -> None:
    request = new_request("a", [1], stop_ids=frozenset(range(8)), min_tokens=1, seed=1)
    sample = Sampler().sample(torch.zeros(1, 8), [request])["a"]
    assert "no token is left" in (sample.error or "")


def test_logprobs_are_of_the_raw_distribution_with_ties_by_id() -> None:
    rng = np.random.default_rng(4)
    rows = np.round(rng.normal(0, 2, (6, 700)) * 2).astype(np.float32) / 2  # many equals
    wanted = [0, 5, 20, 1, 0, 3]
    requests = [
        new_request(str(i), [3, 4, 4], 1, seed=i, logprobs=k, presence_penalty=1.5, logit_bias={9: 4.0}, top_k=9)
        for i, k in enumerate(wanted)
    ]
    samples = Sampler().sample(torch.tensor(rows), requests)
    for i, k in enumerate(wanted):
        exact = rows[i].astype(np.float64) - np.log(np.exp(rows[i].astype(np.float64)).sum())
        (entry,) = samples[str(i)].logprobs or ()
        assert entry.token_id == samples[str(i)].token_ids[0]
        assert entry.logprob == pytest.approx(exact[entry.token_id], abs=1e-5)
        order = sorted(range(700), key=lambda token: (-exact[token], token))[:k]
        assert [token for token, _ in entry.top] == order
        np.testing.assert_allclose([p for _, p in entry.top], exact[order], atol=1e-5)


def test_uniforms_are_uniform_and_unrelated() -> None:
    seeds, indices = np.meshgrid(np.arange(200, dtype=np.uint64), np.arange(200, dtype=np.uint64))
    table = uniform(seeds.ravel(), indices.ravel()).reshape(200, 200)
    assert 0 <= table.min() < table.max() < 1
    counts = np.histogram(table, bins=100, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 99 + 4 * math.sqrt(2 * 99)
    for a, b in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1]), (table[1:, 1:], table[:-1, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_any_seed_is_taken() -> None:
    seeds = [None, 0, -1, 2**63, 2**70 + 3]
    values = [request_seed(new_request("a", [1], seed=seed)) for seed in seeds]
    assert len(set(values)) == len(seeds)
    assert all(0 <= value < 2**64 for value in values)
    assert request_seed(new_request("a", [1])) != request_seed(new_request("b", [1]))
    tokens = {sample_row(np.zeros(5000, dtype=np.float32), new_request("a", [1], seed=seed)) for seed in seeds}
    assert len(tokens) == len(seeds)
