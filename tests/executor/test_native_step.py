"""The whole native step against transformers and against itself: every architecture, chunked, paged, in any batch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Q

from octavo.executor.flat import flatten
from octavo.executor.native_cache import NativeCache
from octavo.executor.native_step import NativeStep, StepLimits
from octavo.executor.requests import Row
from octavo.kernels.native import structs
from octavo.models.load import load_packed
from support import gguf_files, tiny_models
from support.installation import OPTIONAL, without
from support.native_library import isas, needs_native
from support.plans import new_request, row
from support.tiny_models import expected, prompts

BLOCK_SIZE, NUM_BLOCKS = 16, 44


class Paged:
    """A native step over a poisoned cache; each token sequence gets blocks of its own, in random order."""

    def __init__(self, folder, *, isa: str = "", kv=structs.KvType.F32, threads: int = 2) -> None:
        packed = load_packed(folder, "stored")
        config = packed.config
        shape = structs.KvShape(kv, NUM_BLOCKS, BLOCK_SIZE, config.num_kv_heads, config.head_dim)
        cache = NativeCache(shape, config.num_layers)
        cache.poison()
        self.vocab_size = config.vocab_size
        self.step = NativeStep(packed, cache, StepLimits(200, 200), threads, isa)
        self._free = list(np.random.default_rng(0).permutation(NUM_BLOCKS))
        self._blocks: dict[str, list[int]] = {}

    def planned(self, name: str, tokens: list[int], start: int, stop: int) -> Row:
        blocks = self._blocks.setdefault(name, [])
        while len(blocks) * BLOCK_SIZE < stop:
            blocks.append(int(self._free.pop()))
        return row(new_request(name, tokens[:stop], num_prompt=len(tokens)), start, stop - start, blocks)

    def logits(self, *planned: Row) -> np.ndarray:
        return self.step.forward(flatten(planned, BLOCK_SIZE)).logits[:, : self.vocab_size].copy()


@pytest.fixture(scope="module", params=tiny_models.VARIANTS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return tiny_models.write(folder, tiny_models.VARIANTS[request.param]()), folder


@pytest.mark.parametrize("isa", isas())
def test_every_position_of_a_prompt(pair, isa):
    reference, folder = pair
    (tokens,) = prompts(61)
    wanted = expected(reference, tokens).numpy()
    paged = Paged(folder, isa=isa)
    for stop in (1, 15, 16, 17, 61):
        logits = paged.logits(paged.planned(f"to {stop}", tokens, 0, stop))
        np.testing.assert_allclose(logits[0], wanted[stop - 1], rtol=2e-4, atol=2e-4)
    paged.step.close()


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("kv", list(structs.KvType))
def test_any_batch_gives_the_same_bits(pair, isa, kv):
    _, folder = pair
    sequences = prompts(61, 33, 5, 20)
    alone = Paged(folder, isa=isa, kv=kv, threads=1)
    wanted = [alone.logits(alone.planned(str(i), tokens, 0, len(tokens)))[0] for i, tokens in enumerate(sequences)]
    together = Paged(folder, isa=isa, kv=kv, threads=2)
    got = together.logits(*(together.planned(str(i), tokens, 0, len(tokens)) for i, tokens in enumerate(sequences)))
    for a, b in zip(wanted, got, strict=True):
        assert a.tobytes() == b.tobytes()
    chunked = Paged(folder, isa=isa, kv=kv)
    for i, tokens in enumerate(sequences):
        for start in range(0, len(tokens), 7):
            stop = min(start + 7, len(tokens))
            last = chunked.logits(chunked.planned(str(i), tokens, start, stop))
        assert last[0].tobytes() == wanted[i].tobytes()
    for paged in (alone, together, chunked):
        paged.step.close()


@pytest.mark.parametrize("kv", list(structs.KvType))
@pytest.mark.parametrize("variant", ["llama", "mistral-window", "gemma3"])
def test_a_long_context_split_over_threads_gives_the_same_bits(variant, kv, tmp_path):
    tiny_models.write(tmp_path, tiny_models.VARIANTS[variant]())
    (tokens,) = prompts(600)
    wanted = None
    for threads in (1, 2, 4):
        paged = Paged(tmp_path, kv=kv, threads=threads)
        for start in range(0, 592, 148):
            paged.logits(paged.planned("a", tokens, start, start + 148))
        rows = [paged.logits(paged.planned("a", tokens, start, stop))[0] for start, stop in ((592, 593), (593, 600))]
        paged.step.close()
        wanted = wanted or [row.tobytes() for row in rows]
        assert [row.tobytes() for row in rows] == wanted


def test_broken_batches_are_refused(pair):
    _, folder = pair
    paged = Paged(folder)
    (tokens,) = prompts(20)
    flat = flatten([paged.planned("a", tokens, 0, 20)], BLOCK_SIZE)
    parts = flat.arrays()
    parts.token_ids[3] = paged.vocab_size
    with pytest.raises(ValueError, match="bad_token"):
        paged.step.forward(flat)
    parts.token_ids[3] = 0
    parts.block_tables[0, 1] = NUM_BLOCKS
    with pytest.raises(ValueError, match="bad_batch"):
        paged.step.forward(flat)
    parts.block_tables[0, 1] = 0
    parts.positions[0] = 1
    with pytest.raises(ValueError, match="bad_batch"):
        paged.step.forward(flat)
    paged.step.close()
    with pytest.raises(ValueError, match="closed"):
        paged.step.forward(flat)


SERVE_EVERYTHING = """
import sys
from pathlib import Path

from octavo.config import EngineConfig
from octavo.engine.build import build_engine
from octavo.types import FinishReason, SamplingParams, Submission

built = build_engine(EngineConfig(num_blocks=32, num_draft_tokens=2), "m", Path(sys.argv[1]), frozenset())
assert built.resolution.config.executor == "native", built.resolution
wanted = [
    {},
    {"temperature": 0.0},
    {"top_p": 0.9, "top_k": 20, "min_p": 0.01, "seed": 3},
    {"temperature": 0.0, "logprobs": 3, "frequency_penalty": 0.5},
    {"logprobs": 0, "repetition_penalty": 1.2, "presence_penalty": 0.1, "logit_bias": {5: -1.0}, "min_tokens": 2},
]
for i, params in enumerate(wanted):
    given = SamplingParams(max_tokens=4, ignore_eos=True, **params)
    built.engine.submit(Submission(request_id=str(i), prompt_token_ids=[1, 2, 3], params=given, arrival_s=0.0))
ends = []
while built.engine.has_work:
    ends += [event.finish_reason for event in built.engine.step().events if event.finish_reason]
assert ends == [FinishReason.LENGTH] * len(wanted), ends
"""


@needs_native
@pytest.mark.parametrize("kind", ["gguf", "bfloat16", "float16"])
def test_serving_needs_no_torch(tmp_path, kind):
    """The native path must not pay for torch: neither its seconds nor its memory, whatever is asked for."""
    path = tmp_path / "model.gguf"
    if kind == "gguf":
        gguf_files.write_model(path, Q.Q4_1)
    else:
        path = tmp_path / "model"
        tiny_models.write(path, tiny_models.llama(), dtype=getattr(torch, kind))
    done = subprocess.run(
        [sys.executable, "-c", SERVE_EVERYTHING, str(path)],
        env=without(*OPTIONAL),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
