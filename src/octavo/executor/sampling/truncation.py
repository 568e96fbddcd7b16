"""Which tokens may be drawn at all? top_k, then min_p, then top_p, each as a threshold on the logit.

A token that ties with the last one kept is kept as well. So the kept set is a function of the values alone, never of the
order in which a sort leaves equal ones, and each row's is independent of the rows beside it.

Two ways to the same set: among the ``WIDTH`` most likely tokens of a row, when all that survive are among them (nearly
always); else over the whole vocabulary, where a histogram finds the border of top_p without sorting.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WIDTH = 64
NUM_BINS = 1 << 15  # one for each upper half of a non-negative float32: sign, exponent, 7 bits of mantissa


@dataclass(frozen=True, slots=True)
class Truncation:
    """Per row: ``top_k`` int64 (the vocabulary's size or more: off); ``min_p`` (0: off), ``top_p`` (1: off) float64."""

    top_k: Tensor
    min_p: Tensor
    top_p: Tensor

    def take(self, rows: Tensor) -> Truncation:
        return Truncation(self.top_k[rows], self.min_p[rows], self.top_p[rows])

    def is_active(self, vocab_size: int) -> Tensor:
        """``[R]``: rows that cut anything."""
        return (self.top_k < vocab_size) | (self.min_p > 0) | (self.top_p < 1)

    def is_narrow(self, vocab_size: int) -> Tensor:
        """``[R]``: rows worth a look at ``WIDTH`` candidates: not a top_k beyond them, nor min_p alone, which needs no order."""
        has_top_k = self.top_k < vocab_size
        return (has_top_k & (self.top_k < WIDTH)) | (~has_top_k & (self.top_p < 1)) | torch.tensor(vocab_size <= WIDTH)

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
    vocab_size = scaled.shape[1]
    values, ids = scaled.topk(min(WIDTH, vocab_size))
    width = values.shape[1]
    last = values[:, -1:]
    has_top_k = (truncation.top_k < vocab_size)[:, None]
    kth = values.gather(1, truncation.top_k[:, None].clamp(max=width) - 1)
    threshold = torch.where(has_top_k, kth, float("-inf")).maximum(truncation.min_p_threshold())
    weights = torch.where(values >= threshold, values.to(torch.float64).exp(), 0.0)
    settled = (last < threshold) | (width == vocab_size)

    has_top_p = truncation.top_p[:, None] < 1
    is_open = has_top_p & ~settled & threshold.isneginf()  # top_p alone: a share of the whole vocabulary's mass
    mass = weights.sum(-1, keepdim=True)
    open_rows = is_open[:, 0].nonzero()[:, 0]
    if len(open_rows):
        mass[open_rows] = scaled[open_rows].exp_().sum(-1, keepdim=True, dtype=torch.float64)
    nucleus = values.gather(1, _first_reaching(weights.cumsum(-1), truncation.top_p[:, None] * mass))
    weights = torch.where((values >= nucleus) | ~has_top_p, weights, 0.0)
    return Candidates(ids, weights, (settled | (is_open & (last < nucleus)))[:, 0])


def cut_vocabulary(scaled: Tensor, truncation: Truncation) -> Tensor:
    """Weights ``exp(scaled)`` float32 ``[R, V]`` with 0 where cut, without limits."""
    vocab_size = scaled.shape[1]
    threshold = truncation.min_p_threshold()
    k_rows = (truncation.top_k < vocab_size).nonzero()[:, 0]
    if len(k_rows):
        top_k = truncation.top_k[k_rows][:, None]
        kth = scaled[k_rows].topk(int(top_k.max())).values.gather(1, top_k - 1)
        threshold[k_rows] = threshold[k_rows].maximum(kth)
    weights = scaled.exp().masked_fill_(scaled < threshold, 0.0)
    p_rows = (truncation.top_p < 1).nonzero()[:, 0]
    if len(p_rows):
        nucleus = _nucleus_threshold(scaled[p_rows], weights[p_rows], truncation.top_p[p_rows])
        weights[p_rows] = weights[p_rows].masked_fill_(scaled[p_rows] < nucleus, 0.0)
    return weights


def _nucleus_threshold(scaled: Tensor, weights: Tensor, top_p: Tensor) -> Tensor:
    """``[R, 1]``: the least likely logit that is needed for a share ``top_p`` of each row's weight.

    The upper half of a float's bits, counted from the maximum at 0 downwards, is a histogram's bin; the bin that the share
    ends in is the only one whose members are put into order.
    """
    bins = (scaled.abs().view(torch.int32) >> 16).to(torch.int64)
    wide = weights.to(torch.float64)
    running = wide.new_zeros(len(scaled), NUM_BINS).scatter_add_(1, bins, wide).cumsum(-1)
    target = top_p[:, None] * running[:, -1:]
    border = _first_reaching(running, target)
    before = torch.where(border > 0, running.gather(1, (border - 1).clamp(min=0)), 0.0)
    is_member = (bins == border) & (weights > 0)
    members, places = scaled.masked_fill(~is_member, float("-inf")).topk(int(is_member.sum(-1).max()))
    return members.gather(1, _first_reaching(wide.gather(1, places).cumsum(-1), target - before))


def _first_reaching(running: Tensor, target: Tensor) -> Tensor:
    """Index ``[R, 1]`` of the first running sum that is at least ``target`` ``[R, 1]``, or of the last that grew."""
    return torch.searchsorted(running, target.minimum(running[:, -1:]).contiguous())
