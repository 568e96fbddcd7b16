"""Truncation of the distribution: top_k, then min_p, then top_p, each as a threshold on the logit.

A token that ties with the last one kept is kept as well. So the kept set is a function of the values alone, never of the
order in which a sort leaves equal ones, and each row's is independent of the rows beside it.

Two ways to the same set: among the ``WIDTH`` most likely tokens of a row, when all that survive are among them (nearly
always); else over the whole vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from octavo.executor.sampling.inverse import draw

WIDTH = 64


@dataclass(frozen=True, slots=True)
class Truncation:
    """Per row: ``top_k`` int64 (the vocabulary's size or more: off); ``min_p`` (0: off), ``top_p`` (1: off) float64."""

    top_k: Tensor
    min_p: Tensor
    top_p: Tensor

    def take(self, rows: Tensor) -> Truncation:
        """The parameters of some rows: indices, or a mask ``[R]``."""
        return Truncation(self.top_k[rows], self.min_p[rows], self.top_p[rows])

    def is_active(self, vocab_size: int) -> Tensor:
        """``[R]``: rows that cut anything."""
        return (self.top_k < vocab_size) | (self.min_p > 0) | (self.top_p < 1)

    def is_ranked(self, vocab_size: int) -> Tensor:
        """``[R]``: rows whose cuts need an order of the tokens (min_p needs none)."""
        return (self.top_k < vocab_size) | (self.top_p < 1)

    def is_narrow(self, vocab_size: int) -> Tensor:
        """``[R]``: ranked rows worth a look at ``WIDTH`` candidates: not those with a larger top_k."""
        return self.is_ranked(vocab_size) & ((self.top_k < WIDTH) | (self.top_k >= vocab_size))

    def min_p_threshold(self) -> Tensor:
        """``[R, 1]``: p >= min_p * max p, as a bound on logits whose maximum is 0."""
        return self.min_p.log().to(torch.float32)[:, None]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The most likely tokens ``ids`` of each row with their weights (float64, 0 where cut), both ``[R, W]``; right where
    ``settled`` ``[R]``: no token outside of them survives the cuts."""

    ids: Tensor
    weights: Tensor
    settled: Tensor


def cut_candidates(scaled: Tensor, truncation: Truncation) -> Candidates:
    """Try the cuts on the ``WIDTH`` most likely tokens. ``scaled`` float32 ``[R, V]``, row maxima 0."""
    values, ids = scaled.topk(min(WIDTH, scaled.shape[1]))
    before_top_p = _top_k_min_p(values, truncation, scaled.shape[1])
    weights = torch.where(values >= before_top_p, values.to(torch.float64).exp(), 0.0)
    mass = weights.sum(-1, keepdim=True)
    is_whole = values.shape[1] == scaled.shape[1]
    is_complete = (values[:, -1:] < before_top_p) | is_whole  # nothing outside passes top_k and min_p
    only_top_p = ~is_complete & before_top_p.isneginf()  # its mass is the whole vocabulary's
    open_rows = only_top_p[:, 0].nonzero()[:, 0]
    if len(open_rows):
        mass[open_rows] = scaled[open_rows].exp_().sum(-1, keepdim=True, dtype=torch.float64)
    threshold = before_top_p.maximum(_top_p(values, weights, mass, truncation))
    settled = is_complete | (only_top_p & (values[:, -1:] < threshold))
    return Candidates(ids, weights * (values >= threshold), settled[:, 0])


def cut_vocabulary(scaled: Tensor, truncation: Truncation) -> Tensor:
    """Weights ``exp(scaled)`` float32 ``[R, V]`` with 0 where cut, without limits."""
    threshold = truncation.min_p_threshold()
    ranked = truncation.is_ranked(scaled.shape[1]).nonzero()[:, 0]
    if len(ranked):
        rows = scaled if len(ranked) == len(scaled) else scaled[ranked]
        threshold[ranked] = _ranked_threshold(_ascending(rows), truncation.take(ranked))
    return scaled.exp().mul_(scaled >= threshold)


def _ranked_threshold(values: Tensor, truncation: Truncation) -> Tensor:
    """The highest of the three thresholds ``[R, 1]``, from the ascending logits ``[R, V]`` of whole rows."""
    vocab_size = values.shape[1]
    kth = values.gather(1, (vocab_size - truncation.top_k[:, None]).clamp(min=0))  # the least where top_k is off
    threshold = kth.maximum(truncation.min_p_threshold())
    weights = values.exp().mul_(values >= threshold)
    lowest = draw(weights, 1 - truncation.top_p)[:, None]  # below it lies no more than the share that top_p leaves out
    return threshold.maximum(values.gather(1, lowest))


def _top_k_min_p(values: Tensor, truncation: Truncation, vocab_size: int) -> Tensor:
    """The higher of the two thresholds ``[R, 1]``; ``values`` are a row's largest logits, descending."""
    kth = values.gather(1, truncation.top_k[:, None].clamp(max=values.shape[1]) - 1)
    has_top_k = (truncation.top_k < vocab_size)[:, None]
    return torch.where(has_top_k, kth, float("-inf")).maximum(truncation.min_p_threshold())


def _top_p(values: Tensor, weights: Tensor, mass: Tensor, truncation: Truncation) -> Tensor:
    """The logit ``[R, 1]`` of the last token that is needed for a share top_p of ``mass``; -inf where top_p is off."""
    running = weights.cumsum(-1, dtype=torch.float64)
    target = (truncation.top_p[:, None] * mass).minimum(running[:, -1:])
    nucleus = values.gather(1, torch.searchsorted(running, target.contiguous()))
    return torch.where(truncation.top_p[:, None] < 1, nucleus, float("-inf"))


def _ascending(logits: Tensor) -> Tensor:
    """Each row sorted. On the CPU by numpy, whose sort is vectorised: 15 times faster than torch's."""
    if logits.device.type == "cpu":
        return torch.from_numpy(np.sort(logits.numpy(), axis=-1))
    return logits.sort(-1).values
