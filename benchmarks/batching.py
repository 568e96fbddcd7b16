"""Continuous batching: 16 at once against one after another, and against static batching with transformers.generate."""

from __future__ import annotations

import math
import random
import time
from typing import Any

from octavo import LLM, SamplingParams
from octavo.config import DEFAULT_MODEL
from octavo.models.registry import find_model
from record import show, spread

ROUNDS = 3
STATIC_ROUNDS = 3
CONCURRENCY = 16
Work = list[tuple[list[int], int]]  # prompt token ids, output tokens


def run() -> dict[str, Any]:
    rng = random.Random(1)
    llm = LLM(DEFAULT_MODEL, max_num_running=CONCURRENCY)
    octavo(llm, uniform_work(rng, 2), at_once=True)
    serial, concurrent = [], []
    for _ in range(ROUNDS):  # interleaved, fresh random prompts: nothing is found in the prefix cache
        serial.append(octavo(llm, uniform_work(rng, 4), at_once=False))
        concurrent.append(octavo(llm, uniform_work(rng, CONCURRENCY), at_once=True))
    static, continuous = [], []
    generate = transformers_static()
    for _ in range(STATIC_ROUNDS):
        work = mixed_work(rng, 2 * CONCURRENCY)
        static.append(generate(work))
        continuous.append(octavo(llm, work, at_once=True))
    return {
        "dtype": llm.info.dtype,
        "kv_dtype": llm.info.kv_dtype,
        "serial_tokens_per_s": spread(serial),
        "concurrent_tokens_per_s": spread(concurrent),
        "concurrent_over_serial": spread([b / a for a, b in zip(serial, concurrent, strict=True)]),
        "static_tokens_per_s": spread(static),
        "continuous_tokens_per_s": spread(continuous),
        "continuous_over_static": spread([b / a for a, b in zip(static, continuous, strict=True)]),
    }


def uniform_work(rng: random.Random, count: int) -> Work:
    return [(random_prompt(rng, 128), 128) for _ in range(count)]


def mixed_work(rng: random.Random, count: int) -> Work:
    """Prompts of 16..256 tokens; outputs as long as real conversations'.

    The lognormal with the median (129) and the 90th percentile (424) of the Azure conversation trace of 2023, cut at its 99th
    (601).
    """
    lengths = [
        min(601, max(1, round(rng.lognormvariate(math.log(129), math.log(424 / 129) / 1.2816)))) for _ in range(count)
    ]
    return [(random_prompt(rng, rng.randint(16, 256)), length) for length in lengths]


def random_prompt(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(100, 40000) for _ in range(length)]


def octavo(llm: LLM, work: Work, *, at_once: bool) -> float:
    """Output tokens per second, prefill included."""
    params = [SamplingParams(max_tokens=length, temperature=0, ignore_eos=True) for _, length in work]
    started = time.perf_counter()
    if at_once:
        outputs = llm.generate([prompt for prompt, _ in work], params)
    else:
        outputs = [llm.generate(prompt, p)[0] for (prompt, _), p in zip(work, params, strict=True)]
    elapsed = time.perf_counter() - started
    assert [len(output.token_ids) for output in outputs] == [length for _, length in work]
    return sum(length for _, length in work) / elapsed


def transformers_static() -> Any:
    """The naive way: batches in order of arrival, left-padded, each as long as its longest request."""
    import torch
    from transformers import AutoModelForCausalLM

    path = find_model(DEFAULT_MODEL).path
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # fixed lengths

    def generate(work: Work) -> float:
        started = time.perf_counter()
        for at in range(0, len(work), CONCURRENCY):
            batch = work[at : at + CONCURRENCY]
            longest = max(len(prompt) for prompt, _ in batch)
            ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt, _ in batch])
            mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt, _ in batch])
            steps = max(length for _, length in batch)
            with torch.inference_mode():
                model.generate(ids, attention_mask=mask, max_new_tokens=steps, do_sample=False, pad_token_id=0)
        return sum(length for _, length in work) / (time.perf_counter() - started)

    return generate


def describe(figures: dict[str, Any]) -> list[str]:
    return [
        f"16 x (128 in + 128 out) at once, output tokens/s: {show(figures['concurrent_tokens_per_s'], 0)}; "
        f"one after another: {show(figures['serial_tokens_per_s'], 1)}; ratio {show(figures['concurrent_over_serial'])}",
        "32 x (16-256 in, outputs as long as real conversations'), 16 running, output tokens/s: "
        f"{show(figures['continuous_tokens_per_s'], 0)}; transformers.generate, static batches of 16: "
        f"{show(figures['static_tokens_per_s'], 0)}; ratio {show(figures['continuous_over_static'])}",
        f"arithmetic {figures['dtype']}, KV cache {figures['kv_dtype']}; transformers: float32",
    ]
