"""Inverse of the cumulative distribution of each row: the index at which a share of its weight ends."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 256


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """First index ``[R]`` up to which a row of ``weights`` (float32 ``[R, V]``) sums to more than the share ``uniform``.

    With a uniform random share: an index with probability in proportion to its weight. Two levels: the sums of chunks say
    which chunk, the running sum inside it says which entry. That avoids a running sum over the whole row, several times the
    cost of everything else.
    """
    if weights.shape[1] % CHUNK:
        weights = torch.nn.functional.pad(weights, (0, -weights.shape[1] % CHUNK))
    chunks = weights.view(weights.shape[0], -1, CHUNK)
    running = chunks.sum(-1).to(torch.float64).cumsum(-1)
    target = uniform[:, None] * running[:, -1:]
    chunk = first_above(running, target)
    before = torch.where(chunk > 0, running.gather(1, (chunk - 1).clamp(min=0)), 0.0)
    inside = chunks.gather(1, chunk[:, :, None].expand(-1, 1, CHUNK))[:, 0].to(torch.float64)
    return (chunk * CHUNK + first_above(inside.cumsum(-1), target - before))[:, 0]


def first_above(running: Tensor, target: Tensor) -> Tensor:
    """Index ``[R, 1]`` of the first running sum above ``target`` ``[R, 1]``: never an entry that adds nothing.

    Where rounding leaves none above it, the last entry that added something.
    """
    limit = target.minimum(torch.nextafter(running[:, -1:], torch.zeros_like(target)))
    return torch.searchsorted(running, limit.contiguous(), right=True)
