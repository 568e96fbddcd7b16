"""Sampling written down once more, slowly: plain Python in float64, one row at a time."""

from __future__ import annotations

import math

import numpy as np

from octavo.executor.requests import RequestState
from octavo.types import SamplingParams


def edited_logits(logits: list[float], request: RequestState) -> list[float]:
    """After logit_bias, the min_tokens mask and the penalties."""
    p, out = request.params, list(logits)
    for token, bias in (p.logit_bias or {}).items():
        out[token] += bias
    if request.num_output_tokens < p.min_tokens:
        for token in request.stop_ids:
            out[token] = -math.inf
    for token in set(request.token_ids):
        out[token] = out[token] / p.repetition_penalty if out[token] > 0 else out[token] * p.repetition_penalty
    for token in request.token_ids[request.num_prompt_tokens :]:
        out[token] -= p.frequency_penalty
    for token in set(request.token_ids[request.num_prompt_tokens :]):
        out[token] -= p.presence_penalty
    return out


def distribution(logits: list[float], p: SamplingParams) -> list[float]:
    """Probabilities after temperature, top_k, min_p, top_p; equals of the last one kept are kept."""
    peak = max(logits)
    weights = {i: math.exp((x - peak) / p.temperature) for i, x in enumerate(logits) if x > -math.inf}
    if 0 < p.top_k < len(weights):
        kth = sorted(weights.values(), reverse=True)[p.top_k - 1]
        weights = {i: w for i, w in weights.items() if w >= kth}
    weights = {i: w for i, w in weights.items() if w >= p.min_p}
    if p.top_p < 1:
        total, running = sum(weights.values()), 0.0
        for last in sorted(weights.values(), reverse=True):
            running += last
            if running >= p.top_p * total:
                break
        weights = {i: w for i, w in weights.items() if w >= last}
    total = sum(weights.values())
    return [weights.get(i, 0.0) / total for i in range(len(logits))]


def border_distance(logits: list[float], p: SamplingParams) -> float:
    """How far the cuts are from the next token: below about 1e-5, float32 may rightly cut one more or one fewer."""
    peak = max(logits)
    weights = sorted((math.exp((x - peak) / p.temperature) for x in logits), reverse=True)
    distance = min(abs(w - p.min_p) for w in weights) if p.min_p else 1.0
    kept = [w for w in weights if w >= p.min_p]
    if 0 < p.top_k < len(kept):
        kept = [w for w in kept if w >= kept[p.top_k - 1]]
    if p.top_p < 1:
        distance = min(distance, float(np.abs(np.cumsum(kept) / sum(kept) - p.top_p).min()))
    return distance
