"""Rotary embedding, KV write and attention of a layer, by device: torch with a gather planned once a step, or our GPU kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

import octavo.kernels.ops as K
from octavo.kernels.paged_attention.batch import AttentionBatch, LayerCache
from octavo.kernels.paged_attention.cpu import attention, write_kv
from octavo.kernels.paged_attention.plan import AttentionPlan, prepare
from octavo.kernels.rotary.angles import RotaryAngles, WideAngles
from octavo.kernels.rotary.cpu import rotate


class AttentionStep(Protocol):
    """What a step gives to every layer of one kind (global, or with one sliding window)."""

    def attend(self, qk: Tensor, v: Tensor, cache: LayerCache, scale: float) -> Tensor:
        """``qk``: queries, then keys ``[T, num_heads + num_kv_heads, head_dim]``; ``v``: ``[T, num_kv_heads, head_dim]``.

        -> ``[T, num_heads, head_dim]``, contiguous; the rows' keys and values are in ``cache`` afterwards.
        """
        ...


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """Torch's own operations: which blocks are gathered, and the masks, are found once a step and not in every layer."""

    plan: AttentionPlan
    angles: WideAngles

    def attend(self, qk: Tensor, v: Tensor, cache: LayerCache, scale: float) -> Tensor:
        rotated, num_heads = rotate(qk, self.angles), qk.shape[1] - v.shape[1]
        write_kv(rotated[:, num_heads:], v, cache, self.plan)
        return attention(rotated[:, :num_heads], cache, self.plan, scale)


@dataclass(frozen=True, slots=True)
class KernelStep:
    """Two operations a layer, which read the block tables themselves."""

    batch: AttentionBatch
    angles: RotaryAngles
    window: int
    max_context_len: int

    def attend(self, qk: Tensor, v: Tensor, cache: LayerCache, scale: float) -> Tensor:
        batch, num_heads = self.batch, qk.shape[1] - v.shape[1]
        q = K.rotary_write_kv(
            qk[:, :num_heads], qk[:, num_heads:], v, *self.angles, cache.keys, cache.values, batch.slots
        )
        attended: Tensor = K.paged_attention(
            q, cache.keys, cache.values, batch.query_starts, batch.context_lens, batch.block_tables,
            batch.num_decodes, self.max_context_len, scale, self.window,
        )  # fmt: skip
        return attended


def attention_step(
    batch: AttentionBatch, cache: LayerCache, window: int, inv_freq: Tensor, dtype: torch.dtype
) -> AttentionStep:
    """``dtype``: the model's. Our kernels want the cache in it; a CPU, or a cache in another dtype, has torch's operations."""
    angles = RotaryAngles.at(batch.positions, inv_freq)
    if inv_freq.device.type == "cpu" or cache.keys.dtype is not dtype:
        return PlannedStep(prepare(batch, cache, window, dtype), WideAngles.of(angles, dtype))
    return KernelStep(batch, angles, window, max(batch.context_lens_cpu))
