"""Every architecture of the table against transformers, over checkpoints that transformers wrote: whole, chunked, paged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from octavo.models.load import load_model
from octavo.models.transformer import Transformer
from support import tiny_models
from support.ragged import Blocks, Row, model_batch
from support.tiny_models import expected, prompts

BLOCK_SIZE = 4
TOLERANCE = {"rtol": 2e-4, "atol": 2e-4}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=tiny_models.VARIANTS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    reference = tiny_models.write(folder, tiny_models.VARIANTS[request.param]())
    return reference, load_model(folder, torch.float32, torch.device("cpu"))


def poisoned_caches(model: Transformer, num_blocks: int, kv_dtype: torch.dtype = torch.float32):
    caches = model.new_caches(num_blocks, BLOCK_SIZE, kv_dtype)
    for cache in caches:
        cache.keys.fill_(torch.nan)
        cache.values.fill_(torch.nan)
    return caches


def test_whole_prompt(pair):
    reference, model = pair
    (tokens,) = prompts(61)
    row = Blocks(40, BLOCK_SIZE).row(tokens)
    logits = model.forward(model_batch([row], [61], BLOCK_SIZE), poisoned_caches(model, 40))
    assert logits.dtype == torch.float32 and logits.std() > 0.3
    torch.testing.assert_close(logits, expected(reference, tokens), **TOLERANCE)


def test_chunked_prefill_and_decode(pair):
    reference, model = pair
    (tokens,) = prompts(45)
    row, caches, got = Blocks(40, BLOCK_SIZE).row(tokens), poisoned_caches(model, 40), []
    for count in (5, 1, 13, 2, 8, *[1] * 16):
        got.append(model.forward(model_batch([row], [count], BLOCK_SIZE), caches))
    torch.testing.assert_close(torch.cat(got), expected(reference, tokens), **TOLERANCE)


def test_mixed_ragged_batches(pair):
    """Requests of very different lengths join, prefill in chunks and decode together; each sees only itself."""
    reference, model = pair
    blocks = Blocks(90, BLOCK_SIZE, seed=3)
    rows = [blocks.row(tokens) for tokens in prompts(70, 3, 30, 17, 42)]
    caches, got = poisoned_caches(model, 90), {id(row): [] for row in rows}
    generator = torch.Generator().manual_seed(1)
    while running := [row for row in rows if row.num_computed < len(row.token_ids)]:
        counts = {id(row): next_count(row, generator) for row in running}
        running.sort(key=lambda row: counts[id(row)] > 1)
        sizes = [counts[id(row)] for row in running]
        logits = model.forward(model_batch(running, sizes, BLOCK_SIZE), caches)
        for row, part in zip(running, logits.split(sizes), strict=True):
            got[id(row)].append(part)
    for row in rows:
        torch.testing.assert_close(torch.cat(got[id(row)]), expected(reference, row.token_ids), **TOLERANCE)


def next_count(row: Row, generator: torch.Generator) -> int:
    left = len(row.token_ids) - row.num_computed
    many = int(torch.randint(2, 20, (1,), generator=generator))
    return min(left, many if row.num_computed < len(row.token_ids) // 2 else 1)


def test_only_wanted_rows_have_logits(pair):
    reference, model = pair
    first, second = prompts(9, 14)
    blocks = Blocks(40, BLOCK_SIZE)
    rows = [blocks.row(first), blocks.row(second)]
    logits = model.forward(model_batch(rows, [9, 14], BLOCK_SIZE, all_logits=False), poisoned_caches(model, 40))
    wanted = torch.stack([expected(reference, first)[-1], expected(reference, second)[-1]])
    torch.testing.assert_close(logits, wanted, **TOLERANCE)


@pytest.mark.parametrize("kv_dtype", [torch.float16, torch.bfloat16])
def test_half_precision_cache(pair, kv_dtype):
    reference, model = pair
    (tokens,) = prompts(33)
    row, caches = Blocks(40, BLOCK_SIZE).row(tokens), poisoned_caches(model, 40, kv_dtype)
    got = [model.forward(model_batch([row], [n], BLOCK_SIZE), caches) for n in (20, *[1] * 13)]
    error = (torch.cat(got) - expected(reference, tokens)).abs().max()
    assert 0 < error < (0.02 if kv_dtype is torch.float16 else 0.15)


def test_sharded_and_half_weights(tmp_path: Path):
    reference = tiny_models.write(tmp_path / "shards", tiny_models.qwen3(), max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    (tokens,) = prompts(20)
    model = load_model(tmp_path / "shards", torch.float32, torch.device("cpu"))
    logits = model.forward(
        model_batch([Blocks(9, BLOCK_SIZE).row(tokens)], [20], BLOCK_SIZE), poisoned_caches(model, 9)
    )
    torch.testing.assert_close(logits, expected(reference, tokens), **TOLERANCE)
    assert model.weight_bytes == 4 * model.config.num_parameters

    for dtype in (torch.bfloat16, torch.float16):
        folder = tmp_path / str(dtype)
        reference.to(dtype).save_pretrained(folder)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model = load_model(folder, torch.float32, torch.device("cpu"))
        row = Blocks(9, BLOCK_SIZE).row(tokens)
        logits = model.forward(model_batch([row], [20], BLOCK_SIZE), poisoned_caches(model, 9))
        torch.testing.assert_close(logits, expected(loaded, tokens), **TOLERANCE)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3"])
def test_bfloat16_arithmetic(tmp_path: Path, name: str):
    """bfloat16 weights and arithmetic: close to float32 as far as eight bits go, at every row count."""
    reference = tiny_models.write(tmp_path, tiny_models.VARIANTS[name]())
    (tokens,) = prompts(40)
    model = load_model(tmp_path, torch.bfloat16, torch.device("cpu"))
    row, caches = Blocks(40, BLOCK_SIZE).row(tokens), poisoned_caches(model, 40, torch.bfloat16)
    got = [model.forward(model_batch([row], [n], BLOCK_SIZE), caches) for n in (30, 3, *[1] * 7)]
    wanted = expected(reference, tokens)
    assert (torch.cat(got) - wanted).square().mean().sqrt() < 0.05 * wanted.std()
