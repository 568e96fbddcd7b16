"""Roofline limits of a load plan on this machine: arithmetic on model, plan and calibration; no measurement here.

Roofline (Williams, Waterman, Patterson, CACM 2009): a phase takes at least its bytes over the bandwidth and at least its
operations over the matrix rate, whichever is more. For a request of P prompt and O output tokens (the first comes with the
prefill):

    operations of a prefill   2 layer_parameters (P - shared) + 2 head_parameters + attention of its tokens
    operations of a decode    (O - 1) (2 layer_parameters + 2 head_parameters) + attention of its tokens
    attention of a token      4 num_heads head_dim c in each layer, c = tokens seen (itself included, at most the window)
    bytes of a decode         steps * weight_bytes + KV bytes of the tokens seen by each decoded token
    steps                     at least ceil(sum of (O - 1) / users), and at least max(O - 1)

``shared`` are prompt tokens that a prefix cache may hold, computed once. With one user the phases follow each other, so their
times add up; with more they may overlap, and the limit is max(all bytes / bandwidth, all operations / rate). Writes,
activations and norms are left out: nothing that runs these products in this arithmetic can be faster. The matrix rate is that of
the fastest arithmetic here that holds the same numbers (``Calibration.fastest``); the formula names it where it is another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from octavo.bench.calibration import Calibration
from octavo.bench.types import BenchRequest, LoadPlan
from octavo.errors import ConfigError


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the limits need to know of a model as it is served."""

    name: str
    num_parameters: int
    layer_parameters: int  # read and multiplied for every token: all but embedding and head
    head_parameters: int  # vocabulary x hidden size, for rows that sample
    weight_bytes: int  # read by one decode step: layers and head, as stored
    weights_by: str = "parameters x dtype"  # who says so: "the engine", "the server", "the file"
    kv_bytes_per_token: int  # of all layers
    num_layers: int
    num_heads: int
    head_dim: int
    vocab_size: int
    arithmetic: str = "float32"  # of the matrix products: float32, bfloat16, int8
    windows: tuple[int, ...] = ()  # sliding window of each layer, 0: all tokens; empty: all tokens everywhere


def as_served(facts: ModelFacts, num_bytes: int, by: str) -> ModelFacts:
    """With the size of all weights as ``by`` stores them. An embedding that is not the head as well is not read by a step: it is
    left out by its share of the parameters. Nothing changes for 0 bytes, which means: not known."""
    if num_bytes <= 0:
        return facts
    share = (facts.layer_parameters + facts.head_parameters) / facts.num_parameters
    return msgspec.structs.replace(facts, weight_bytes=round(num_bytes * share), weights_by=by)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan makes a machine do at least."""

    users: int
    num_requests: int
    output_tokens: int
    decode_steps: int
    prefill_operations: float
    decode_operations: float
    prefill_bytes: float
    decode_bytes: float


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """The best that the machine could do. Tokens per second; None: the plan has no such phase."""

    output_tokens_per_s: float
    decode_tokens_per_s: float | None
    ttft_s: float  # prefill time a request, mean
    bound_by: str  # "memory" or "arithmetic": of the phase that takes longer
    formula: str  # with the numbers put in


def work_of(plan: LoadPlan, facts: ModelFacts) -> Work:
    """Raises ``ConfigError`` for prompts that are not token ids: their length is not known."""
    users = plan.concurrency or len(plan.requests)
    shared = _shared_tokens(plan.requests)
    lengths = [(_length(request), request.max_tokens) for request in plan.requests]
    decoded = [output - 1 for _, output in lengths]
    steps = max(math.ceil(sum(decoded) / users), *decoded, 0)
    prefill_operations = decode_operations = kv_bytes = 0.0
    for place, (prompt, output) in enumerate(lengths):
        first = shared if place else 0
        prefill_operations += 2.0 * facts.layer_parameters * (prompt - first) + 2.0 * facts.head_parameters
        prefill_operations += _attention_operations(facts, np.arange(first + 1, prompt + 1))
        seen = np.arange(prompt + 1, prompt + output)
        decode_operations += (output - 1) * 2.0 * (facts.layer_parameters + facts.head_parameters)
        decode_operations += _attention_operations(facts, seen)
        kv_bytes += facts.kv_bytes_per_token / facts.num_layers * _seen_in_all_layers(facts, seen)
    return Work(
        users=users,
        num_requests=len(lengths),
        output_tokens=sum(output for _, output in lengths),
        decode_steps=steps,
        prefill_operations=prefill_operations,
        decode_operations=decode_operations,
        prefill_bytes=float(facts.weight_bytes) * (len(lengths) if users == 1 else 1),
        decode_bytes=float(steps) * facts.weight_bytes + kv_bytes,
    )


def limit_of(work: Work, facts: ModelFacts, calibration: Calibration) -> Limit | None:
    """None where the matrix rate of the model's arithmetic is not known."""
    found, bandwidth = calibration.fastest(facts.arithmetic), calibration.bandwidth
    if found is None:
        return None
    stand_in, rate = found[0], found[1].best * 1e9
    prefill_s = max(work.prefill_bytes / bandwidth, work.prefill_operations / rate)
    decode_s = max(work.decode_bytes / bandwidth, work.decode_operations / rate)
    memory_s = (work.prefill_bytes + work.decode_bytes) / bandwidth
    arithmetic_s = (work.prefill_operations + work.decode_operations) / rate
    total_s = prefill_s + decode_s if work.users == 1 else max(memory_s, arithmetic_s)
    decoded = work.output_tokens - work.num_requests
    return Limit(
        output_tokens_per_s=work.output_tokens / total_s,
        decode_tokens_per_s=decoded / decode_s if decoded else None,
        ttft_s=prefill_s / work.num_requests,
        bound_by="memory" if memory_s > arithmetic_s else "arithmetic",
        formula=_formula(work, (rate, bandwidth), total_s) + _stand_in(stand_in, facts, calibration),
    )


def _formula(work: Work, speeds: tuple[float, float], total_s: float) -> str:
    rate, bandwidth = (speed / 1e9 for speed in speeds)

    def phase(num_bytes: float, operations: float) -> str:
        return (
            f"max({num_bytes / 1e9:.4g} GB / {bandwidth:.4g} GB/s, {operations / 1e9:.4g} GFLOP / {rate:.4g} GFLOP/s)"
        )

    if work.users == 1:
        prefill = phase(work.prefill_bytes, work.prefill_operations)
        decode = phase(work.decode_bytes, work.decode_operations)
        time = f"prefill {prefill} + decode {decode}" if work.decode_steps else f"prefill {prefill}"
    else:
        operations = work.prefill_operations + work.decode_operations
        time = phase(work.prefill_bytes + work.decode_bytes, operations)
    return f"{work.output_tokens} output tokens / {time} = {work.output_tokens / total_s:.4g} tokens/s"


def _stand_in(used: str, facts: ModelFacts, calibration: Calibration) -> str:
    if used == facts.arithmetic:
        return ""
    own = calibration.of(facts.arithmetic)
    slower = "is not known" if own is None else f"reaches {own.best:.4g}"
    return f", by the rate of {used}: {facts.arithmetic} itself {slower} here"


def _length(request: BenchRequest) -> int:
    if request.token_ids is None:
        raise ConfigError(f"request {request.index} is not token ids, so the limit of its prefill is not known")
    return len(request.token_ids)


def _shared_tokens(requests: Sequence[BenchRequest]) -> int:
    """Tokens that all prompts begin with: what a prefix cache computes once. One token at least is always computed."""
    prompts = [request.token_ids or [] for request in requests]
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in lexicographic order all others lie between
    same = next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return min(same, *(len(prompt) - 1 for prompt in prompts))


def _seen_in_all_layers(facts: ModelFacts, seen: np.ndarray[tuple[int], np.dtype[np.int_]]) -> float:
    """Sum over tokens and layers of how many tokens are attended to."""
    if not len(seen):
        return 0.0
    windows = facts.windows or (0,) * facts.num_layers
    return sum(
        windows.count(window) * float(np.minimum(seen, window).sum() if window else seen.sum())
        for window in set(windows)
    )


def _attention_operations(facts: ModelFacts, seen: np.ndarray[tuple[int], np.dtype[np.int_]]) -> float:
    """Products of queries with keys and of weights with values: 2 * 2 * num_heads * head_dim for every token seen."""
    return 4.0 * facts.num_heads * facts.head_dim * _seen_in_all_layers(facts, seen)
