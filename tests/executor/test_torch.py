"""Batch building, fault isolation and the factory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from octavo.config import EngineConfig
from octavo.errors import ConfigError, ModelError
from octavo.executor.batch import build_batch, decodes_first
from octavo.executor.factory import build_executor
from octavo.executor.fake import FakeExecutor
from octavo.executor.torch_executor import CacheShape, TorchExecutor
from octavo.kernels.paged_attention.batch import LayerCache, new_layer_cache
from octavo.models.batch import ModelBatch
from support.executor_tiny import VOCAB_SIZE, write_tiny_llama
from support.plans import introduce, new_request, plan_of, row

CPU = torch.device("cpu")


@settings(max_examples=100, deadline=None)
@given(
    shares=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=8),
    block_size=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_a_batch_says_for_every_row_what_the_plan_says(
    shares: list[tuple[int, int, int]], block_size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    planned = []
    for i, (start, num_tokens, num_unknown) in enumerate(shares):
        request = new_request(str(i), rng.integers(0, 1000, start + num_tokens + num_unknown).tolist())
        num_blocks = -(-(start + num_tokens) // block_size) + int(rng.integers(0, 3))
        blocks = rng.permutation(500)[:num_blocks].tolist()
        planned.append(row(request, start, num_tokens, blocks, num_unknown == 0))
    ordered = decodes_first(planned)
    batch = build_batch(ordered, block_size, CPU)
    at = batch.attention

    rows = [(p, position) for p in ordered for position in range(p.start, p.start + p.num_tokens)]
    assert batch.token_ids.tolist() == [p.request.token_ids[position] for p, position in rows]
    assert at.positions.tolist() == [position for _, position in rows]
    assert at.slots.tolist() == [
        p.request.block_ids[position // block_size] * block_size + position % block_size for p, position in rows
    ]
    assert at.query_lens_cpu == tuple(p.num_tokens for p in ordered)
    assert at.query_starts.tolist() == [0, *np.cumsum(at.query_lens_cpu).tolist()]
    assert at.context_lens.tolist() == list(at.context_lens_cpu) == [p.start + p.num_tokens for p in ordered]
    for p, table in zip(ordered, at.block_tables.tolist(), strict=True):
        needed = -(-(p.start + p.num_tokens) // block_size)
        assert table == [*p.request.block_ids[:needed], *[0] * (len(table) - needed)]
    assert at.num_decodes == sum(p.num_tokens == 1 for p in ordered)
    assert set(at.query_lens_cpu[: at.num_decodes]) <= {1}
    last = {id(p): row for row, (p, _) in enumerate(rows)}
    assert batch.logit_rows.tolist() == [last[id(p)] for p in ordered if p.samples]
    dtypes = (
        at.query_starts,
        at.context_lens,
        at.block_tables,
        at.slots,
        at.positions,
        batch.token_ids,
        batch.logit_rows,
    )
    assert [tensor.dtype for tensor in dtypes] == [torch.int32] * 3 + [torch.int64] * 4


@pytest.mark.parametrize(
    ("start", "num_tokens", "num_blocks", "words"),
    [(0, 9, 4, "at least one known token"), (0, 0, 4, "a: 0 from 0"), (4, 4, 1, "needs 2 blocks, its table has 1")],
)
def test_impossible_plans_are_named(start: int, num_tokens: int, num_blocks: int, words: str) -> None:
    good = row(new_request("good", [1, 2]), 0, 2, [0])
    bad = row(new_request("a", [1] * 8), start, num_tokens, range(num_blocks), False)
    with pytest.raises(ValueError, match=words):
        build_batch([good, bad], 4, CPU)


class ScriptedModel:
    """Logits favour the token after each row's own; raises for the tokens that a test forbids."""

    vocab_size = 50

    def __init__(self, forbidden: frozenset[int] = frozenset(), nan_after: int = -1, max_rows: int = 1000) -> None:
        self.forbidden, self.nan_after, self.max_rows = forbidden, nan_after, max_rows

    def forward(self, batch: ModelBatch, caches: list[LayerCache]) -> Tensor:
        if self.forbidden & set(batch.token_ids.tolist()):
            raise IndexError("index out of range in self")
        if len(batch.token_ids) > self.max_rows:
            raise MemoryError("too many rows")
        tokens = batch.token_ids[batch.logit_rows]
        logits = torch.nn.functional.one_hot((tokens + 1) % self.vocab_size, self.vocab_size).float()
        logits[tokens == self.nan_after] = float("nan")
        return logits

    def new_caches(self, num_blocks: int, block_size: int, kv_dtype: torch.dtype) -> list[LayerCache]:
        return [new_layer_cache(num_blocks, block_size, 1, 2, kv_dtype, CPU)]


def run_three(model: ScriptedModel, tokens: tuple[int, int, int]) -> dict[str, tuple[tuple[int, ...], str | None]]:
    """The middle one is a chunk that does not sample yet."""
    executor = TorchExecutor(model, CacheShape(8, 4, torch.float32), CPU)
    planned = [
        introduce(new_request(name, [token] * 3, temperature=0.0), 0, 2 + (name != "b"), [i], name != "b")
        for i, (name, token) in enumerate(zip("abc", tokens, strict=True))
    ]
    result = executor.launch(plan_of(*planned)).result()
    assert result.step_time_s > 0
    return {name: (sample.token_ids, sample.error) for name, sample in result.samples.items()}


def test_all_goes_well() -> None:
    assert run_three(ScriptedModel(), (5, 6, 7)) == {"a": ((6,), None), "c": ((8,), None)}


@pytest.mark.parametrize("bad", ["a", "b", "c"])
def test_the_request_that_makes_a_step_raise_fails_alone(bad: str) -> None:
    tokens = tuple(9 if name == bad else 20 for name in "abc")
    outcome = run_three(ScriptedModel(forbidden=frozenset({9})), tokens)  # type: ignore[arg-type]
    assert outcome.pop(bad) == ((), "IndexError: index out of range in self")
    assert outcome == {name: ((21,), None) for name in "ac" if name != bad}


def test_a_batch_too_big_for_the_memory_runs_in_parts() -> None:
    assert run_three(ScriptedModel(max_rows=4), (5, 6, 7)) == {"a": ((6,), None), "c": ((8,), None)}


def test_non_finite_logits_fail_alone() -> None:
    outcome = run_three(ScriptedModel(nan_after=7), (5, 6, 7))
    assert outcome["a"] == ((6,), None)
    assert "not finite" in (outcome["c"][1] or "")


def test_a_lost_device_is_not_blamed_on_a_request() -> None:
    class LostDevice(ScriptedModel):
        def forward(self, batch: ModelBatch, caches: list[LayerCache]) -> Tensor:
            raise torch.AcceleratorError("device-side assert triggered")

    with pytest.raises(torch.AcceleratorError):
        run_three(LostDevice(), (1, 2, 3))


def test_an_empty_plan_and_a_plan_without_samples() -> None:
    executor = TorchExecutor(ScriptedModel(), CacheShape(8, 4, torch.float32), CPU)
    assert executor.launch(plan_of()).result().samples == {}
    chunk = introduce(new_request("a", [1] * 8), 0, 5, [0, 1], False)
    assert executor.launch(plan_of(chunk)).result().samples == {}


def config(**values: object) -> EngineConfig:
    defaults: dict[str, object] = {
        "executor": "cpu",
        "dtype": "float32",
        "kv_dtype": "float16",
        "num_blocks": 16,
        "num_threads": 1,
        "max_model_len": 64,
    }
    return EngineConfig(**(defaults | values))  # type: ignore[arg-type]


def test_the_factory_builds_a_model_that_answers(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path)
    built = build_executor(config(), tmp_path)
    request = new_request("a", [1, 2, 3], temperature=0.0, logprobs=2)
    sample = built.executor.launch(plan_of(introduce(request, 0, 3, [4], True))).result().samples["a"]
    assert sample.error is None
    assert 0 <= sample.token_ids[0] < VOCAB_SIZE
    assert sample.logprobs is not None
    assert sample.logprobs[0].top[0][0] == sample.token_ids[0]
    assert built.kv_cache_bytes == 2 * 2 * 16 * 16 * 2 * 8 * 2  # k and v, layers, blocks, tokens, heads, dim, bytes
    assert built.weight_bytes > VOCAB_SIZE * 32 * 2 * 4
    built.executor.close()


def test_the_factory_builds_a_fake_without_a_model() -> None:
    built = build_executor(config(executor="fake", fake_step_ms=2.5, block_size=8), None)
    assert isinstance(built.executor, FakeExecutor)
    assert built.executor.step_time_s == pytest.approx(0.0025)
    assert built.executor.block_size == 8


def test_the_factory_refuses_what_it_cannot_build(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown executor 'tpu'; known: fake, native, cpu, cuda"):
        build_executor(config(executor="tpu"), None)
    with pytest.raises(ConfigError, match="needs a model"):
        build_executor(config(), None)
    with pytest.raises(ModelError):
        build_executor(config(), tmp_path / "nothing")
