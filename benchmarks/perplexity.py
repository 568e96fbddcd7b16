"""Perplexity with 8-bit activations (the native step) and with float32 arithmetic on the same weights.

    python benchmarks/perplexity.py TEXT [--model NAME] [--weights stored|int8|int4] [--windows 40] [--out FILE.json]

TEXT is a plain text file, such as WikiText-2's raw test set. It is cut into windows of 512 tokens, each scored from its first
token on, its second half counted (as llama.cpp's perplexity does, so that every counted token has at least 256 before it). The
reference multiplies the very same weights, taken out of the packed matrices, in float32 on torch. Per-window differences are
paired, so the interval of the ratio is much narrower than that of either figure.
"""

from __future__ import annotations

import argparse
import ctypes as c
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from octavo.executor.flat import flatten
from octavo.executor.native_cache import KV_TYPES, NativeCache
from octavo.executor.native_step import NativeStep, StepLimits
from octavo.executor.requests import RequestState, Row
from octavo.kernels.native import structs
from octavo.kernels.native.library import kernel_table, load
from octavo.kernels.paged_attention.batch import LayerCache
from octavo.models.dequantize import usable_cores
from octavo.models.load import load_model, load_packed
from octavo.models.packed import PackedModel
from octavo.models.registry import find_model
from octavo.models.transformer import Transformer
from octavo.text.tokenizer import load_tokenizer
from octavo.types import SamplingParams
from record import environment

WINDOW, COUNTED, BLOCK = 512, 256, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--weights", default="stored", choices=("stored", "int8", "int4"))
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    path = find_model(options.model).path
    tokens = load_tokenizer(path).encode(options.text.read_text(encoding="utf-8"))
    windows = [tokens[i * WINDOW : (i + 1) * WINDOW] for i in range(min(options.windows, len(tokens) // WINDOW))]
    packed = load_packed(path, options.weights)
    reference = reference_of(path, packed)
    wanted = [nll(reference_logits(reference, window), window) for window in windows]
    figures: dict[str, Any] = {"model": options.model, "weights": options.weights, "windows": len(windows)}
    figures["reference"] = float(np.exp(np.mean(wanted)))
    for name, kind in KV_TYPES.items():
        step = native_step(packed, kind)
        got = [nll(native_logits(step, window, packed.config.vocab_size), window) for window in windows]
        step.close()
        figures[name] = compared(got, wanted)
        print(f"{name:9} {figures[name]}", flush=True)
    print(f"reference {figures['reference']:.4f}")
    if options.out:
        options.out.write_text(json.dumps({"environment": environment(), "figures": figures}, indent=1) + "\n")


def compared(got: list[float], wanted: list[float]) -> dict[str, float]:
    """Perplexity and its ratio to the reference's, with the 95 % interval of the paired differences."""
    differences = np.array(got) - np.array(wanted)
    half = 1.96 * differences.std(ddof=1) / np.sqrt(len(differences))
    ratio, low, high = (float(np.exp(differences.mean() + d)) for d in (0, -half, half))
    return {"perplexity": float(np.exp(np.mean(got))), "ratio": ratio, "low": low, "high": high}


def nll(logits: torch.Tensor, window: list[int]) -> float:
    """Mean negative log-likelihood of the counted tokens; ``logits``: float32 ``[WINDOW, vocabulary]``."""
    rows = logits[WINDOW - COUNTED - 1 : WINDOW - 1].double()
    return float(torch.nn.functional.cross_entropy(rows, torch.tensor(window[WINDOW - COUNTED :])))


def native_step(packed: PackedModel, kind: structs.KvType) -> NativeStep:
    config = packed.config
    shape = structs.KvShape(kind, WINDOW // BLOCK, BLOCK, config.num_kv_heads, config.head_dim)
    return NativeStep(packed, NativeCache(shape, config.num_layers), StepLimits(WINDOW, WINDOW), usable_cores())


def native_logits(step: NativeStep, window: list[int], vocab_size: int) -> torch.Tensor:
    blocks = list(range(WINDOW // BLOCK))
    request = RequestState("window", window, WINDOW, SamplingParams(), 1, block_ids=blocks)
    flat = flatten(
        [Row(request, 0, 1, samples=True)], BLOCK, [tuple(window[1:])]
    )  # a draft has logits at every position
    return torch.from_numpy(step.forward(flat).logits)[:, :vocab_size]


def reference_of(path: Path, packed: PackedModel) -> Transformer:
    """The torch model with exactly the packed model's weights, as float32."""
    model = load_model(path, torch.float32, torch.device("cpu"))
    for layer, own in zip(model.parts.layers, packed.layers, strict=True):
        put(layer.attention.qkv.weight, own.q, own.k, own.v)  # type: ignore[attr-defined]
        put(layer.attention.output.weight, own.o)  # type: ignore[attr-defined]
        put(layer.mlp.gate_up.weight, own.gate, own.up)  # type: ignore[attr-defined]
        put(layer.mlp.down.weight, own.down)  # type: ignore[attr-defined]
    put(model.parts.embedding, packed.embedding)
    put(model.parts.head.weight, packed.head)  # type: ignore[attr-defined]
    return model


def put(weight: torch.Tensor, *matrices: Any) -> None:
    """Overwrite a torch weight with the rows of packed matrices."""
    rows = np.concatenate([unpacked(matrix.struct) for matrix in matrices])
    with torch.inference_mode():
        weight.copy_(torch.from_numpy(rows))


def unpacked(matrix: structs.Matrix) -> np.ndarray:
    out = np.empty((matrix.n, matrix.num_groups * structs.GROUP), np.float32)
    for n in range(matrix.n):
        load().octavo_unpack_row(kernel_table(), c.byref(matrix), n, c.c_void_p(out[n].ctypes.data))
    return out[:, : matrix.k]


def reference_logits(model: Transformer, window: list[int]) -> torch.Tensor:
    from octavo.kernels.paged_attention.batch import AttentionBatch
    from octavo.models.batch import ModelBatch

    def ints(values: Any, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)

    rows = list(range(WINDOW))
    attention = AttentionBatch(
        query_starts=ints([0, WINDOW], torch.int32),
        context_lens=ints([WINDOW], torch.int32),
        block_tables=ints([list(range(WINDOW // BLOCK))], torch.int32),
        slots=ints(rows),
        positions=ints(rows),
        query_lens_cpu=(WINDOW,),
        context_lens_cpu=(WINDOW,),
        num_decodes=0,
    )
    caches: list[LayerCache] = model.new_caches(WINDOW // BLOCK, BLOCK, torch.float32)
    return model.forward(ModelBatch(ints(window), attention, ints(rows)), caches)


if __name__ == "__main__":
    main()
