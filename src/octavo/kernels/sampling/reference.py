"""Float64 reference of ``sampling``: a full sort, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.operation import taking
from octavo.kernels.sampling.checks import GREEDY_BELOW, Penalties, Sampling

GAMMA, MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def uniform_reference(seed: int, position: int) -> float:
    """In [0, 1); in Python's whole numbers."""

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
        return z ^ (z >> 31)

    key = mix((seed + GAMMA) & MASK)
    return (mix((key + (position + 1) * GAMMA) & MASK) >> 11) * 2.0**-53


@taking(Sampling)
def sampling_reference(call: Sampling) -> Tensor:
    """int64 ``[R]``."""
    tokens, temperature = [], call.temperature
    for row, x in enumerate(call.logits.double()):
        peak = x.max()
        if x.isnan().any() or not peak.isfinite():
            tokens.append(-1)
            continue
        if temperature[row] < GREEDY_BELOW:
            tokens.append(int((x == peak).nonzero()[0]))
            continue
        weights = ((x - peak) / temperature[row].double()).exp()
        cuts = int(call.top_k[row]), float(call.top_p[row]), float(call.min_p[row])
        weights = weights * (weights >= _threshold(weights, *cuts))
        running = weights.cumsum(0)
        target = uniform_reference(int(call.seeds[row]), int(call.positions[row])) * running[-1]
        above = ((running > target) & (weights > 0)).nonzero()
        tokens.append(int(above[0] if len(above) else weights.nonzero()[-1]))
    return torch.tensor(tokens, dtype=torch.int64)


def _threshold(weights: Tensor, top_k: int, top_p: float, min_p: float) -> float:
    """The smallest weight that is kept."""
    ordered = weights.sort(descending=True).values
    threshold = max(min_p, float(ordered[top_k - 1])) if 0 < top_k < len(weights) else min_p
    if top_p >= 1:
        return threshold
    kept = ordered[ordered >= threshold]
    running = kept.cumsum(0)
    return float(kept[min(int((running < top_p * running[-1]).sum()), len(kept) - 1)]) if len(kept) else threshold


@taking(Penalties)
def penalties_reference(call: Penalties) -> None:
    """Token by token."""
    logits, bounds = call.logits, call.starts.tolist()
    for row in range(len(logits)):
        own = slice(bounds[row], bounds[row + 1])
        factor, frequency, presence = (float(p[row]) for p in (call.repetition, call.frequency, call.presence))
        for token, count in zip(call.tokens[own].tolist(), call.counts[own].tolist(), strict=True):
            if 0 <= token < logits.shape[1]:
                x = float(logits[row, token])
                x = x / factor if x > 0 else x * factor
                logits[row, token] = x - frequency * count - presence * (count > 0)


def logprobs_reference(logits: Tensor, tokens: Tensor, num_top: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """float64 ``[R]``, int64 ``[R, num_top]``, float64 ``[R, num_top]``."""
    x = logits.double()
    x = x - x.logsumexp(-1, keepdim=True)
    inside = (tokens >= 0) & (tokens < x.shape[1])
    chosen = x.gather(1, tokens.clamp(0, x.shape[1] - 1)[:, None])[:, 0].masked_fill(~inside, -torch.inf)
    top = x.sort(dim=-1, descending=True, stable=True)
    return chosen, top.indices[:, :num_top], top.values[:, :num_top]
