"""Sampling with torch's own operations: a sort of the rows. The executors on the CPU have quicker ways of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.operation import taking
from octavo.kernels.sampling.checks import GREEDY_BELOW, Penalties, Sampling


def _signed(number: int) -> int:
    """The bits of a 64-bit number as torch's int64 holds them."""
    return number - (1 << 64 if number >= 1 << 63 else 0)


GAMMA = _signed(0x9E3779B97F4A7C15)
FIRST, SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def uniform(seeds: Tensor, positions: Tensor) -> Tensor:
    """float64 ``[R]`` in [0, 1): the number of ``checks.py``; int64 arithmetic wraps."""

    def shifted(z: Tensor, bits: int) -> Tensor:
        return (z >> bits) & ((1 << (64 - bits)) - 1)  # as if it had no sign

    def mix(z: Tensor) -> Tensor:
        z = (z ^ shifted(z, 30)) * FIRST
        z = (z ^ shifted(z, 27)) * SECOND
        return z ^ shifted(z, 31)

    return shifted(mix(mix(seeds + GAMMA) + (positions + 1) * GAMMA), 11).double() * 2.0**-53


@taking(Sampling)
def sampling(call: Sampling) -> Tensor:
    """int64 ``[R]``."""
    temperature, top_k, top_p = call.temperature, call.top_k, call.top_p
    x, size = call.logits.float(), call.logits.shape[1]
    peak, greedy = x.max(-1)
    weights = ((x - peak[:, None]).double() / temperature[:, None].clamp(min=GREEDY_BELOW)).exp()
    ordered = weights.sort(-1, descending=True).values
    kth = ordered.gather(1, (top_k[:, None].long() - 1).clamp(0, size - 1))
    has_top_k = ((top_k > 0) & (top_k < size))[:, None]
    threshold = torch.where(has_top_k, kth, 0.0).maximum(call.min_p[:, None])
    kept = ordered * (ordered >= threshold)
    running = kept.cumsum(-1)
    needed = (running < top_p[:, None] * running[:, -1:]).sum(-1, keepdim=True).clamp(max=size - 1)
    nucleus = torch.where(top_p[:, None] < 1, ordered.gather(1, needed), 0.0)
    weights = weights * (weights >= threshold.maximum(nucleus))
    running = weights.cumsum(-1)
    above = (running > uniform(call.seeds, call.positions)[:, None] * running[:, -1:]) & (weights > 0)
    last = size - 1 - (weights > 0).flip(-1).int().argmax(-1)
    drawn = torch.where(above.any(-1), above.int().argmax(-1), last)
    tokens = torch.where(temperature < GREEDY_BELOW, greedy, drawn)
    return torch.where(peak.isfinite() & ~x.isnan().any(-1), tokens, -1)


@taking(Penalties)
def penalties(call: Penalties) -> None:
    """In place; reads the number of tokens back from the device."""
    logits, tokens, lens = call.logits, call.tokens, call.starts.diff().long()
    rows = torch.arange(len(lens), device=logits.device).repeat_interleave(lens)
    inside = (tokens >= 0) & (tokens < logits.shape[1])
    places = rows[inside], tokens[inside].long()
    counts, rows = call.counts[inside], places[0]
    values = logits[places].float()
    values = torch.where(values > 0, values / call.repetition[rows], values * call.repetition[rows])
    logits[places] = (values - call.frequency[rows] * counts - call.presence[rows] * (counts > 0)).to(logits.dtype)


def logprobs(logits: Tensor, tokens: Tensor, num_top: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Of the chosen; ids and values of the most likely."""
    x = logits.float().log_softmax(-1)
    inside = (tokens >= 0) & (tokens < x.shape[1])
    chosen = x.gather(1, tokens.clamp(0, x.shape[1] - 1)[:, None])[:, 0].masked_fill(~inside, -torch.inf)
    top = x.sort(dim=-1, descending=True, stable=True)
    return (
        chosen,
        top.indices[:, :num_top].clone(memory_format=torch.contiguous_format),
        top.values[:, :num_top].clone(memory_format=torch.contiguous_format),
    )
