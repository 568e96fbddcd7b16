"""Benchmark of the prefix cache: its gain where prefixes repeat, its cost where none does."""

from __future__ import annotations

import random
import time
from typing import Any

from batching import octavo, random_prompt, uniform_work
from octavo import LLM, SamplingParams
from octavo.config import DEFAULT_MODEL
from octavo.kvcache.cache import KVCache
from octavo.types import Request
from record import show, spread

PREFIX_TOKENS = 1000
ROUNDS = 7


def run() -> dict[str, Any]:
    rng = random.Random(2)
    with LLM(DEFAULT_MODEL) as llm:
        cold, warm = [], []
        for _ in range(ROUNDS):
            prefix = random_prompt(rng, PREFIX_TOKENS)
            cold.append(ttft(llm, prefix + random_prompt(rng, 8)))
            warm.append(ttft(llm, prefix + random_prompt(rng, 8)))
    with LLM(DEFAULT_MODEL, prefix_cache=True) as on, LLM(DEFAULT_MODEL, prefix_cache=False) as off:
        ratios, seconds = [], []
        for i in range(ROUNDS):
            pair = {True: on, False: off}
            times = {}
            for which in (True, False) if i % 2 else (False, True):
                work = uniform_work(rng, 16)
                times[which] = sum(length for _, length in work) / octavo(pair[which], work, at_once=True)
            ratios.append(times[True] / times[False])
            seconds.append(times[True])
    bookkeeping = [bookkeeping_s() for _ in range(ROUNDS)]
    return {
        "cold_ttft_s": spread(cold),
        "warm_ttft_s": spread(warm),
        "warm_over_cold": spread([w / c for c, w in zip(cold, warm, strict=True)]),
        "time_on_over_off_at_no_hits": spread(ratios),
        "bookkeeping_s": spread(bookkeeping),
        "bookkeeping_share": spread([b / s for b, s in zip(bookkeeping, seconds, strict=True)]),
    }


def ttft(llm: LLM, prompt: list[int]) -> float:
    (output,) = llm.generate(prompt, SamplingParams(max_tokens=1, temperature=0))
    assert output.timings is not None
    assert output.timings.ttft_s is not None
    return output.timings.ttft_s


def bookkeeping_s() -> float:
    """All that the prefix cache does for 16 x (128 + 128) tokens without a hit: match, hash and index, with it less without."""

    def seconds(prefix_cache: bool) -> float:
        rng = random.Random(3)
        kv = KVCache(1024, 16, prefix_cache=prefix_cache)
        requests = [
            Request(str(i), random_prompt(rng, 256), 128, SamplingParams(), 128, frozenset(), 0.0) for i in range(16)
        ]
        started = time.perf_counter()
        for request in requests:
            kv.start(request, 128, kv.match(request))
            for computed in range(128, 257):
                kv.extend(request.request_id, computed)
                request.num_computed_tokens = computed
                kv.commit(request)
        return time.perf_counter() - started

    return seconds(True) - seconds(False)


def describe(figures: dict[str, Any]) -> list[str]:
    return [
        f"TTFT of a 1,008-token prompt: cold {show(figures['cold_ttft_s'], 3, ' s')}, with 1,000 tokens cached "
        f"{show(figures['warm_ttft_s'], 3, ' s')}; ratio {show(figures['warm_over_cold'], 3)}",
        f"at a 0 % hit rate, 16 x (128 + 128): time with over time without the cache "
        f"{show(figures['time_on_over_off_at_no_hits'], 3)}",
        f"its bookkeeping alone: {show(figures['bookkeeping_s'], 4, ' s')}, "
        f"{100 * figures['bookkeeping_share']['median']:.3f} % of the run",
    ]
