"""The same request gives the same tokens alone, in a batch of 16, with a cached prefix, in chunks, and after preemption."""

from __future__ import annotations

from typing import Any

from equality import PROMPTS
from octavo import LLM, SamplingParams
from octavo.config import DEFAULT_MODEL
from octavo.engine.llm import Output

NUM_PROMPTS = 16
PREAMBLE = "You are reading a collection of short texts, one after another, each on its own line. " * 6
KINDS = {
    "greedy": SamplingParams(max_tokens=48, temperature=0, ignore_eos=True),
    "seeded": SamplingParams(max_tokens=48, temperature=0.8, top_p=0.9, seed=11, ignore_eos=True),
}


def run() -> dict[str, Any]:
    prompts = [PREAMBLE + prompt for prompt in PROMPTS[:NUM_PROMPTS]]
    figures: dict[str, Any] = {}
    for kind, params in KINDS.items():
        with LLM(DEFAULT_MODEL, prefix_cache=False) as llm:
            alone = [llm.generate(prompt, params)[0] for prompt in prompts]
            together = llm.generate(prompts, params)
        with LLM(DEFAULT_MODEL, prefix_cache=False, max_step_tokens=23, max_num_running=16) as llm:
            chunked = llm.generate(prompts, params)
        with LLM(DEFAULT_MODEL) as llm:
            llm.generate(prompts, params)
            cached = llm.generate(prompts, params)
        assert all(output.num_cached_tokens > 0 for output in cached)
        with LLM(DEFAULT_MODEL, prefix_cache=False, num_blocks=48, max_num_running=16) as llm:
            preempted = llm.generate(prompts, params)
        assert any(output.timings is not None and output.timings.num_preemptions for output in preempted)
        ways = {
            "in a batch of 16": together,
            "in chunks": chunked,
            "with a cached prefix": cached,
            "preempted": preempted,
        }
        figures[kind] = {way: _equal(alone, outputs) for way, outputs in ways.items()}
    return figures


def _equal(expected: list[Output], outputs: list[Output]) -> int:
    return sum(a.token_ids == b.token_ids for a, b in zip(expected, outputs, strict=True))


def describe(figures: dict[str, Any]) -> list[str]:
    return [
        f"{kind}, texts of 48 tokens equal to those of the request alone, of {NUM_PROMPTS}: "
        + ", ".join(f"{count} {way}" for way, count in counts.items())
        for kind, counts in figures.items()
    ]
