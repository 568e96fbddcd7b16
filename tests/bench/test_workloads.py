"""Workloads: lengths, shared prefixes, conversations, classes and tenants, in every form of prompt."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.bench.lengths import Lengths, parse_lengths
from octavo.bench.plan import PlanOptions, make_plan
from octavo.bench.prompts import PromptOptions, calibrate
from octavo.bench.specs import describe
from octavo.bench.traces import read_trace
from octavo.bench.types import BenchRequest, LoadPlan, Slo
from octavo.bench.words import WORDS
from octavo.bench.workloads import WORKLOADS, parse_workload, workload_spec
from octavo.errors import ConfigError

SPECS = (
    "chat",
    "long-prompt",
    "code",
    "shared-prefix",
    "multi-turn",
    "mixed",
    "synthetic",
    "trace:mooncake-conv,scale=0.1",
)


def plan_of(workload: str, num_requests: int = 100, seed: int = 0, **prompts: object) -> LoadPlan:
    options = PlanOptions(seed=seed, rate=10, num_requests=num_requests, prompts=PromptOptions(**prompts))  # type: ignore[arg-type]
    return make_plan(workload, "poisson", options)


def prompt_of(request: BenchRequest) -> list[str] | list[int]:
    if request.token_ids is not None:
        return request.token_ids
    texts = [one["content"] for one in request.messages or []] or [request.text or ""]
    return " ".join(texts).split()


@pytest.mark.parametrize("form", ["tokens", "text", "messages"])
@pytest.mark.parametrize("spec", SPECS)
def test_every_workload_in_every_form(spec: str, form: str) -> None:
    if (spec, form) == ("multi-turn", "tokens"):
        with pytest.raises(ConfigError, match="the responses come back as text"):
            plan_of(spec, form=form)
        return
    plan = plan_of(spec, 60, form=form, vocab_low=500, vocab_high=600)
    field = {"tokens": "token_ids", "text": "text", "messages": "messages"}[form]
    for request in plan.requests:
        assert getattr(request, field)
        words = prompt_of(request)
        assert set(words) <= (set(range(500, 600)) if form == "tokens" else set(WORDS))
    # a word stands for a token, so all forms have the same lengths
    if spec != "multi-turn":
        expected = plan_of(spec, 60, form="tokens").requests
        assert [len(prompt_of(one)) for one in plan.requests] == [len(prompt_of(one)) for one in expected]
        assert [one.max_tokens for one in plan.requests] == [one.max_tokens for one in expected]


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_with_its_defaults_written_out_is_the_same_workload(spec: str) -> None:
    workload = parse_workload(spec)
    assert parse_workload(workload_spec(workload)) == workload


def test_synthetic_lengths_are_exact() -> None:
    plan = plan_of("synthetic:prompt=32,output=20")
    assert {(len(one.token_ids or []), one.max_tokens) for one in plan.requests} == {(32, 20)}
    ids = [token for one in plan.requests for token in one.token_ids or []]
    assert min(ids) >= 100 and max(ids) < 30_000
    assert len({tuple(one.token_ids or []) for one in plan.requests}) == 100


def draws(text: str, seed: int, count: int = 20_000) -> list[int]:
    lengths: Lengths = parse_lengths(text)
    rng = np.random.default_rng(seed)
    return [lengths.draw(rng) for _ in range(count)]


@pytest.mark.parametrize("seed", [1, 2])
def test_distributions_of_lengths(seed: int) -> None:
    uniform = draws("uniform(10;20)", seed)
    assert set(uniform) == set(range(10, 21))
    assert statistics.fmean(uniform) == pytest.approx(15, abs=0.12)
    logs = np.log(draws("lognormal(1000;0.5)", seed))
    assert logs.mean() == pytest.approx(np.log(1000), abs=0.02)
    assert logs.std() == pytest.approx(0.5, abs=0.015)
    cut = draws("lognormal(100;1;150)", seed)
    assert max(cut) == 150 and statistics.median(cut) == pytest.approx(100, rel=0.05)
    counts = Counter(draws("histogram(16*3;32*0;64*1)", seed))
    assert set(counts) == {16, 64}
    assert counts[16] / 20_000 == pytest.approx(0.75, abs=0.015)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_lengths_stay_within_their_bounds(one: int, other: int, seed: int) -> None:
    low, high = sorted((one, other))
    assert all(low <= length <= high for length in draws(f"uniform({low};{high})", seed, 50))
    assert all(1 <= length <= high for length in draws(f"lognormal({low};2;{high})", seed, 50))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "is not a token count from 1"),
        ("-3", "is not a token count"),
        ("12.5", "is not a token count"),
        ("uniform(5;2)", "the low end 5 is above the high end 2"),
        ("uniform(5)", "expected 32, uniform(low;high)"),
        ("normal(5;2)", "is not a distribution of lengths; expected 32, uniform(low;high)"),
        ("lognormal(0;1)", "a median of at least 1"),
        ("lognormal(x;1)", "'x' is not a number"),
        ("lognormal(9;nan)", "'nan' is not a number"),
        ("lognormal(9;-1)", "a sigma from 0"),
        ("histogram(5*0)", "one is above zero"),
        ("histogram(5*-1;6*3)", "weights are not negative"),
        ("histogram(5*a)", "'a' is not a number"),
        ("histogram(a*5)", "'a' is not a token count"),
    ],
)
def test_bad_lengths(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_workload(f"synthetic:prompt={text}")
    assert expected in caught.value.message
    assert caught.value.message.startswith("workload 'synthetic': prompt: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chatt", "unknown workload 'chatt'; did you mean 'chat'? known: chat, long-prompt"),
        ("nothing", "known: chat, long-prompt, code, shared-prefix, multi-turn, mixed, synthetic, trace"),
        ("synthetic:promt=3", "unknown setting 'promt'; did you mean 'prompt'"),
        ("synthetic:3", "'3' is not key=value; write it as synthetic:key=value"),
        ("shared-prefix:groups=0", "groups = '0': expected"),
        ("mixed:interactive=0,standard=0,batch=0", "all three shares are 0"),
        ("trace:azure-code,scale=0", "scale = '0': expected"),
        ("trace:azure-code,speed=2", "unknown setting 'speed'"),
    ],
)
def test_unknown_names_and_parameters(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_workload(text)
    assert expected in caught.value.message


def test_chat_looks_like_sharegpt_and_code_like_azure() -> None:
    chat = plan_of("chat", 2000)
    assert all(len(one.messages or []) == 1 for one in chat.requests)
    assert statistics.median(len(prompt_of(one)) for one in chat.requests) == pytest.approx(45, rel=0.2)
    assert statistics.median(one.max_tokens for one in chat.requests) == pytest.approx(176, rel=0.15)
    code = plan_of("code", 1000)
    prompts = [len(prompt_of(one)) for one in code.requests]
    assert np.percentile(prompts, [50, 90]) == pytest.approx([1469, 5188], rel=0.15)
    assert np.percentile([one.max_tokens for one in code.requests], [50, 90]) == pytest.approx([13, 55], rel=0.2)


def test_shared_prefix() -> None:
    plan = plan_of("shared-prefix:prefix=64,prompt=16,groups=3", 200)
    heads = Counter(tuple((one.token_ids or [])[:64]) for one in plan.requests)
    assert len(heads) == 3 and min(heads.values()) > 30
    assert len({tuple((one.token_ids or [])[64:]) for one in plan.requests}) == 200
    messages = plan_of("shared-prefix:prefix=64,prompt=16", 5, form="messages").requests
    assert [one["role"] for one in messages[0].messages or []] == ["system", "user"]
    assert len({(one.messages or [])[0]["content"] for one in messages}) == 1


@pytest.mark.parametrize("limit", [1, 2, 10, 64, 65, 79, 80, 200])
def test_a_clipped_shared_prefix_leaves_something_of_its_own(limit: int) -> None:
    plan = plan_of("shared-prefix:prefix=64,prompt=16", 5, max_prompt_tokens=limit)
    assert {len(one.token_ids or []) for one in plan.requests} == {min(limit, 80)}
    assert len({tuple(one.token_ids or []) for one in plan.requests}) == 5
    assert bool(plan.notes) == (limit < 80)


def test_a_conversation_is_a_chain() -> None:
    plan = plan_of("multi-turn:turns=3,think=2,system=8", 30)
    for place, request in enumerate(plan.requests):
        turn = place % 3
        assert request.after == (place - 1 if turn else None)
        assert (plan.send_s[place] is None) == bool(turn)
        assert (request.think_s > 0) == bool(turn)
        assert [one["role"] for one in request.messages or []] == (["user"] if turn else ["system", "user"])
    pauses = [one.think_s for one in plan_of("multi-turn:turns=6,think=2", 3000).requests if one.after is not None]
    assert statistics.fmean(pauses) == pytest.approx(2, rel=0.1)
    assert statistics.stdev(pauses) == pytest.approx(2, rel=0.15)


def test_a_conversation_as_text_keeps_its_turns_apart() -> None:
    first, second = plan_of("multi-turn:turns=2,prompt=3", 2, form="text").requests
    assert first.text and second.text
    assert first.text.endswith("\n") and not first.text.startswith("\n")
    assert second.text.startswith("\n") and second.text.endswith("\n") and len(second.text.split()) == 3


def test_a_conversation_ends_where_its_history_fills_the_prompt() -> None:
    plan = plan_of("multi-turn:turns=10,first=50,prompt=10,output=40", 20, max_prompt_tokens=200)
    # 50; 50 + 40 + 10 = 100; 150; 200; the fifth would be 250
    turns = Counter(request.after is None for request in plan.requests)
    assert turns[True] == 5 and len(plan.requests) == 20
    assert plan.notes == ["conversations end where history and question pass 200 tokens"]


def test_mixed_classes_and_tenants() -> None:
    plan = plan_of("mixed:tenants=2,slo_scale=2", 3000)
    classes = Counter(one.service_class for one in plan.requests)
    assert {name: count / 3000 for name, count in classes.items()} == pytest.approx(
        {"interactive": 0.5, "standard": 0.3, "batch": 0.2}, abs=0.04
    )
    tenants = Counter(one.tenant for one in plan.requests)
    assert tenants["tenant-1"] / tenants["tenant-2"] == pytest.approx(2, rel=0.15)
    interactive = next(one for one in plan.requests if one.service_class == "interactive")
    assert (interactive.priority, interactive.slo) == (0, Slo(ttft_s=1.0, tpot_s=0.1))
    batch = next(one for one in plan.requests if one.service_class == "batch")
    assert (batch.priority, batch.slo) == (2, Slo(e2e_s=120.0))
    only = plan_of("mixed:interactive=0,standard=1,batch=0,scale=0.1", 50)
    assert {one.service_class for one in only.requests} == {"standard"}
    assert max(len(prompt_of(one)) for one in only.requests) <= 205


def shared_tokens(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@pytest.mark.parametrize(("parameters", "block"), [("", 512), (",scale=0.05", 26), (",block=16,scale=0.1", 16)])
def test_equal_block_hashes_become_equal_tokens_and_others_do_not(parameters: str, block: int) -> None:
    plan = make_plan(f"trace:mooncake-synthetic{parameters}", options=PlanOptions(num_requests=60))
    rows = [row for row, _ in zip(read_trace("mooncake-synthetic"), range(60), strict=False)]
    seen: dict[int, list[int]] = {}
    for row, request in zip(rows, plan.requests, strict=True):
        tokens = request.token_ids or []
        full, rest = divmod(row.num_prompt_tokens, 512)
        assert len(tokens) == full * block + round(rest * block / 512)
        for place in range(full):
            part = tokens[place * block : (place + 1) * block]
            assert seen.setdefault(row.hash_ids[place], part) == part
    assert len({tuple(part) for part in seen.values()}) == len(seen)
    pairs = [(i, j) for i in range(20) for j in range(i)]
    for i, j in pairs:
        hashes = shared_tokens(list(rows[i].hash_ids), list(rows[j].hash_ids))
        tokens = shared_tokens(plan.requests[i].token_ids or [], plan.requests[j].token_ids or [])
        assert min(hashes - 1, 0) * block <= tokens <= hashes * block + 2  # two random tokens may be equal once


def test_a_prompt_cut_in_a_trace_keeps_its_shared_prefix() -> None:
    whole = make_plan("trace:mooncake-conv,scale=0.1", options=PlanOptions(num_requests=20))
    options = PlanOptions(num_requests=20, prompts=PromptOptions(max_prompt_tokens=100, max_output_tokens=10))
    cut = make_plan("trace:mooncake-conv,scale=0.1", options=options)
    for one, other in zip(whole.requests, cut.requests, strict=True):
        assert other.token_ids == (one.token_ids or [])[:100]
        assert other.max_tokens == min(one.max_tokens, 10)
    assert any("20 prompts were cut to 100 tokens" in note for note in cut.notes)


def test_a_trace_from_a_file_starts_where_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "own=trace.csv"
    path.write_text("arrival_s,input_length,output_length\n0,10,1\n1,20,2\n4,30,3\n", encoding="utf-8")
    plan = make_plan(f"trace:{path},start=1", "trace:speed=2")
    assert [len(prompt_of(one)) for one in plan.requests] == [20, 30]
    assert plan.send_s == [0, 1.5]


def test_words_are_calibrated() -> None:
    assert len(set(WORDS)) == len(WORDS) > 400
    measured = calibrate(lambda text: 2 * len(text.split()))
    assert measured == 2.0
    plan = plan_of("synthetic:prompt=100", 3, form="text", tokens_per_word=measured)
    assert {len(prompt_of(one)) for one in plan.requests} == {50}


@pytest.mark.real_model
def test_a_word_is_a_token_of_the_default_model() -> None:
    from octavo.models.registry import find_model
    from octavo.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(find_model("smollm2-135m-instruct").path)
    assert calibrate(lambda text: len(tokenizer.encode(text))) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"form": "words"}, "expected one of auto, tokens, text, messages"),
        ({"vocab_low": 5, "vocab_high": 5}, "expected 0 <= low < high"),
        ({"tokens_per_word": 0}, "expected 0.1 to 100"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens = 0: expected at least 1"),
        ({"max_output_tokens": -1}, "max_output_tokens = -1: expected at least 1"),
    ],
)
def test_bad_prompt_options(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PromptOptions(**options)  # type: ignore[arg-type]
    assert expected in caught.value.message


def test_every_workload_describes_itself() -> None:
    words = describe(WORKLOADS)
    assert list(words) == list(WORKLOADS)
    assert words["chat"].startswith("One question, one response. Parameters: prompt=lognormal(45;1.70;2048), ")
    assert words["synthetic"].endswith("Parameters: prompt=128, output=128.")


@pytest.mark.parametrize(("name", "all_blocks"), [("mooncake-conv", 0.136), ("mooncake-synthetic", 0.645)])
def test_a_prefix_cache_would_hit_as_often_as_the_hashes_repeat(name: str, all_blocks: float) -> None:
    """An endless cache of full blocks of 16 tokens, asked with the plan's prompts; the trace counts the last, part-filled
    block of a prompt as well, so its own share is near but not equal."""
    plan = make_plan(f"trace:{name},block=16")
    seen_tokens: set[int] = set()
    seen_hashes: set[int] = set()
    num_blocks = token_hits = hash_hits = 0
    for request, row in zip(plan.requests, read_trace(name), strict=True):
        parent = 0
        tokens = request.token_ids or []
        for place in range(len(tokens) // 16):
            parent = hash((parent, tuple(tokens[place * 16 : place * 16 + 16])))
            token_hits += parent in seen_tokens
            hash_hits += row.hash_ids[place] in seen_hashes
            num_blocks += 1
            seen_tokens.add(parent)
            seen_hashes.add(row.hash_ids[place])
    assert token_hits == hash_hits > 0
    assert token_hits / num_blocks == pytest.approx(all_blocks, abs=0.02)
