"""Parts of a GPU run that need transformers: Llama-3.1-8B's shapes with random weights, end to end and under torch.compile."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from octavo.kernels.gpu.lab.compile_study import MODES, Subject, row, study, words
from octavo.kernels.gpu.lab.options import Options
from octavo.kernels.gpu.lab.parts import Part
from octavo.kernels.gpu.lab.plain_llama import LLAMA_3_1_8B, Shape
from octavo.kernels.gpu.lab.timing import Timing, measure, one_line
from octavo.kernels.replace import replace_in, restore

TINY = Shape(2, 48, 80, 6, 2, 97, 256)
# prompt or context tokens, batch: decode is bound by the weights, prefill by arithmetic
DECODES, PREFILLS = ((512, 1), (512, 16), (2048, 64)), ((2048, 1), (1024, 8))
TINY_DECODES, TINY_PREFILLS = ((8, 1), (8, 3)), ((8, 2),)


def build(options: Options, attention: str = "sdpa") -> Any:
    """Random weights of the initial scale, made on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = TINY if options.tiny else LLAMA_3_1_8B
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
    )
    config._attn_implementation = attention
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(options.device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def decode_call(model: Any, forward: Callable[..., Any], context: int, batch: int, static: bool) -> Callable[[], Any]:
    """One step on a cache of ``context`` tokens, which is cut back to its length after every step."""
    from transformers import DynamicCache, StaticCache

    device, vocab = model.device, model.config.vocab_size
    cache = (
        StaticCache(config=model.config, max_cache_len=context + 64) if static else DynamicCache(config=model.config)
    )
    with torch.no_grad():
        prompt = torch.randint(vocab, (batch, context), device=device)
        for chunk in prompt.split(max(1, 8192 // batch), 1):
            model(chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)
    token = torch.randint(vocab, (batch, 1), device=device)
    position = torch.full((batch, 1), context, device=device)

    def step() -> Any:
        with torch.no_grad():
            done = forward(token, position_ids=position, past_key_values=cache, use_cache=True)
            if static:
                for layer in cache.layers:  # the same place is written again
                    if torch.is_tensor(getattr(layer, "cumulative_length", None)):
                        layer.cumulative_length.fill_(context)
            else:
                cache.crop(-1)
            return done

    return step


def prefill_call(model: Any, forward: Callable[..., Any], length: int, batch: int) -> Callable[[], Any]:
    """A whole prompt, without a cache to fill."""
    prompt = torch.randint(model.config.vocab_size, (batch, length), device=model.device)

    def step() -> Any:
        with torch.no_grad():
            return forward(prompt, use_cache=False, logits_to_keep=1)

    return step


class Variant(NamedTuple):
    """One way to run the model. ``forward``: the model itself or compiled; ``static_cache``: else a dynamic one."""

    name: str
    model: Any
    forward: Callable[..., Any]
    static_cache: bool = False


def variants(options: Options) -> Iterator[Variant]:
    """One model in memory, changed in place from variant to variant; eager once more at the end (drift)."""
    model = build(options)
    # Inductor on a CPU needs a C++ compiler and minutes: a dry run takes Dynamo alone
    how: Mapping[str, Any] = {"backend": "eager"} if options.tiny else {"mode": "reduce-overhead"}
    yield Variant("eager", model, model)
    yield Variant("torch.compile", model, torch.compile(model, **how), static_cache=True)
    torch.compiler.reset()
    replace_in(model)
    yield Variant("replace_in", model, model)
    yield Variant("replace_in + torch.compile", model, torch.compile(model, **how), static_cache=True)
    torch.compiler.reset()
    restore(model)
    yield Variant("eager again", model, model)


def end_to_end(options: Options, task: str) -> dict[str, Any]:
    """Milliseconds of a step by variant and shape, and each variant's speed beside eager's and torch.compile's."""
    device = torch.device(options.device)
    shapes = [("decode", *one) for one in (TINY_DECODES if options.tiny else DECODES)]
    shapes += [("prefill", *one) for one in (TINY_PREFILLS if options.tiny else PREFILLS)]
    times: dict[str, dict[str, Timing]] = {
        f"{kind}, {tokens} tokens, batch {batch}": {} for kind, tokens, batch in shapes
    }
    errors: dict[str, str] = {}
    for variant in variants(options):
        for (kind, tokens, batch), shape in zip(shapes, times, strict=True):
            try:
                if kind == "decode":
                    call = decode_call(variant.model, variant.forward, tokens, batch, variant.static_cache)
                else:
                    call = prefill_call(variant.model, variant.forward, tokens, batch)
                timed = measure({variant.name: call}, device, budget_s=0.2 if options.tiny else 1.5)
                times[shape] |= timed.times
                errors |= {f"{variant.name}, {shape}": one for one in timed.errors.values()}
            except Exception as error:
                errors[f"{variant.name}, {shape}"] = one_line(error)
            gc.collect()
    rows = {shape: _row(found) for shape, found in times.items()}
    best = "; ".join(f"{shape}: {row['over_eager']:.2f}x eager" for shape, row in rows.items() if row["over_eager"])
    return {"rows": rows, "errors": errors, "words": best or str(errors)}


def _row(found: Mapping[str, Timing]) -> dict[str, Any]:
    ours = min((found[name].median_s for name in found if name.startswith("replace_in")), default=0.0)

    def over(name: str) -> float:
        return found[name].median_s / ours if ours and name in found else 0.0

    return {
        "times": {name: asdict(one) for name, one in found.items()},
        "over_eager": over("eager"),
        "over_compile": over("torch.compile"),
    }


def compile_study(options: Options, mode: str) -> dict[str, Any]:
    """One mode over the batch sizes: a decode step of transformers' Llama on a static cache, and a prefill."""
    model, device = build(options), torch.device(options.device)

    def decode(batch: int) -> tuple[Any, tuple[Any, ...]]:
        return decode_call(model, model, 8 if options.tiny else 512, batch, True), ()

    def prefill(batch: int) -> tuple[Any, tuple[Any, ...]]:
        return prefill_call(model, model, 8 if options.tiny else 1024, batch), ()

    results = []
    for subject, batches in ((Subject("decode", decode), (1, 16, 64)), (Subject("prefill", prefill), (1, 8))):
        some = batches[:1] if options.tiny else batches
        results += study(subject, some, device, (mode,), 0.2 if options.tiny else 1.5)
    return {"rows": [row(one) for one in results], "words": " | ".join(map(words, results))}


PARTS = (
    Part("end-to-end", lambda options: ("llama-3.1-8b",), end_to_end),
    Part("compile-study", lambda options: () if options.tiny and options.device == "cpu" else MODES, compile_study),
)
