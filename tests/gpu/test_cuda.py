"""The torch path on an NVIDIA GPU against the same path on the CPU. Skipped where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from octavo.executor.sampling.sampler import Sampler
from octavo.kernels.paged_attention.batch import AttentionBatch
from octavo.models.batch import ModelBatch
from octavo.models.load import load_model
from octavo.types import Request, SamplingParams
from support import tiny_models
from support.ragged import Blocks, model_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BLOCK_SIZE = 4


def on(device: torch.device, batch: ModelBatch) -> ModelBatch:
    a = batch.attention
    tensors = {
        name: getattr(a, name).to(device) for name in AttentionBatch.__slots__ if torch.is_tensor(getattr(a, name))
    }
    return ModelBatch(batch.token_ids.to(device), replace(a, **tensors), batch.logit_rows.to(device))


@pytest.mark.parametrize("variant", sorted(tiny_models.VARIANTS))
def test_ragged_steps_give_the_same_logits(variant: str, tmp_path: Path) -> None:
    tiny_models.write(tmp_path, tiny_models.VARIANTS[variant]())
    models = {device: load_model(tmp_path, torch.float32, device) for device in (CPU, CUDA)}
    caches = {device: model.new_caches(64, BLOCK_SIZE, torch.float32) for device, model in models.items()}
    blocks = Blocks(64, BLOCK_SIZE, seed=3)
    generator = torch.Generator().manual_seed(1)
    lengths = (9, 23, 31, 14)
    rows = [blocks.row(torch.randint(0, 101, (n,), generator=generator).tolist()) for n in lengths]
    for counts in ((5, 7, 30, 13), (2, 15), (1, 1)):
        # Requests with one token left come first; those with none left are done.
        alive = sorted(
            (r for r in rows if r.num_computed < len(r.token_ids)), key=lambda r: len(r.token_ids) - r.num_computed
        )
        shares = [min(count, len(r.token_ids) - r.num_computed) for r, count in zip(alive, counts, strict=False)]
        order = sorted(range(len(shares)), key=lambda i: shares[i] != 1)
        batch = model_batch([alive[i] for i in order], [shares[i] for i in order], BLOCK_SIZE)
        logits = {device: model.forward(on(device, batch), caches[device]).cpu() for device, model in models.items()}
        torch.testing.assert_close(logits[CUDA], logits[CPU], atol=2e-3, rtol=2e-3)


def test_sampling_gives_the_same_tokens() -> None:
    logits = torch.randn(32, 5000, generator=torch.Generator().manual_seed(5)) * 4
    kinds = (
        {"temperature": 0.0},
        {"top_k": 20},
        {"top_p": 0.8},
        {"min_p": 0.05},
        {"temperature": 0.7, "frequency_penalty": 1.0},
    )
    requests = [
        Request(str(i), [1, 2, 3, i], 3, SamplingParams(seed=i, **kinds[i % len(kinds)]), 9, frozenset(), 0.0)  # type: ignore[arg-type]
        for i in range(32)
    ]
    here, there = (Sampler().sample(logits.clone().to(device), requests) for device in (CPU, CUDA))
    assert {k: v.token_ids for k, v in here.items()} == {k: v.token_ids for k, v in there.items()}
