"""Operations that the models run on a device other than the CPU; their back ends give the logits of the CPU path."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import octavo.kernels.ops as K
from octavo.kernels.library import dispatch
from octavo.kernels.paged_attention.batch import AttentionBatch, LayerCache
from octavo.kernels.registry import NAMES, operation
from octavo.kernels.rotary.angles import RotaryAngles
from octavo.models import transformer
from octavo.models.attention_step import KernelStep
from octavo.models.batch import ModelBatch
from octavo.models.load import load_model
from support import tiny_models
from support.ragged import Blocks, model_batch

SEED = int.from_bytes(os.urandom(4))
BLOCK_SIZE = 4
OPERATIONS = ("linear", "paged_attention", "rms_norm", "rotary_write_kv", "silu_mul")


class Calls(TorchDispatchMode):
    """Our operations that torch's dispatcher saw, each with the device of its first tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, str]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "octavo":
            self.seen.add((func._opname, args[0].device.type))
        return func(*args, **(kwargs or {}))


def on(device: str, batch: ModelBatch) -> ModelBatch:
    attention = batch.attention
    tensors = {
        name: tensor.to(device)
        for name in AttentionBatch.__slots__
        if torch.is_tensor(tensor := getattr(attention, name))
    }
    return ModelBatch(batch.token_ids.to(device), replace(attention, **tensors), batch.logit_rows.to(device))


def steps() -> list[ModelBatch]:
    """A ragged prefill, then chunks beside a decode."""
    blocks, generator = Blocks(64, BLOCK_SIZE, seed=3), torch.Generator().manual_seed(SEED)
    rows = [blocks.row(torch.randint(0, 101, (n,), generator=generator).tolist()) for n in (9, 23, 14)]
    first = model_batch(rows, [5, 7, 13], BLOCK_SIZE)
    return [first, model_batch([rows[2], rows[0], rows[1]], [1, 2, 16], BLOCK_SIZE)]


@pytest.mark.parametrize("variant", sorted(tiny_models.VARIANTS))
def test_off_the_cpu_every_layer_runs_our_operations(variant: str, tmp_path: Path) -> None:
    """Tensors without data stand for a GPU's: the dispatcher sees what would be launched there."""
    tiny_models.write(tmp_path, tiny_models.VARIANTS[variant]())
    model = load_model(tmp_path, torch.float32, torch.device("meta"))
    caches = model.new_caches(64, BLOCK_SIZE, torch.float32)
    with Calls() as calls:
        logits = model.forward(on("meta", steps()[0]), caches)
    assert logits.device.type == "meta"
    assert calls.seen == {(name, "meta") for name in OPERATIONS}


@pytest.mark.parametrize("name", NAMES)
def test_torch_has_our_back_end_for_cuda(name: str) -> None:
    op = operation(name)
    assert getattr(K, name) and torch._C._dispatch_has_kernel_for_dispatch_key(f"octavo::{name}", "CUDA")
    assert op.by_device["cuda"].startswith(("triton", "cuda")) or name == "linear"


@pytest.mark.parametrize("name", ["matmul", "softmax"])
def test_an_operation_does_not_take_the_name_of_its_package(name: str) -> None:
    """In a fresh process, with and without the operations registered: the path of a back end's module stays importable."""
    program = f"""
import octavo.kernels.{name}.triton as x
assert x.__name__ == "octavo.kernels.{name}.triton" and callable(x.{name})
import octavo.kernels.ops as K
import octavo.kernels.{name}.triton as again
assert again is x and callable(K.{name})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="with a GPU Triton is not interpreted, and tests/gpu runs the kernels"
)
@pytest.mark.parametrize("variant", ["llama", "qwen3", "gemma3"])
def test_the_back_ends_of_gpus_give_the_logits_of_the_cpu(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU tensors, dispatched by the table's row for GPUs: Triton in its interpreter, inside the whole model."""
    tiny_models.write(tmp_path, tiny_models.VARIANTS[variant]())
    model, batches = load_model(tmp_path, torch.float32, torch.device("cpu")), steps()
    caches = model.new_caches(64, BLOCK_SIZE, torch.float32)
    expected = [model.forward(batch, caches) for batch in batches]

    def attention_step(
        batch: AttentionBatch, cache: LayerCache, window: int, inv_freq: Tensor, dtype: torch.dtype
    ) -> KernelStep:
        return KernelStep(batch, RotaryAngles.at(batch.positions, inv_freq), window, max(batch.context_lens_cpu))

    monkeypatch.setattr(transformer, "attention_step", attention_step)
    for name in OPERATIONS:
        op = operation(name)
        as_on_gpus = dispatch(replace(op, by_device={"cpu": op.by_device["cuda"]}), getattr(torch.ops.octavo, name))
        monkeypatch.setattr(K, name, as_on_gpus)
    caches = model.new_caches(64, BLOCK_SIZE, torch.float32)
    for cache in caches:
        cache.keys.fill_(torch.nan)
        cache.values.fill_(torch.nan)
    for batch, wanted in zip(batches, expected, strict=True):
        torch.testing.assert_close(model.forward(batch, caches), wanted, atol=2e-3, rtol=2e-3)
