"""Decoder-only transformer for every architecture of the table: forward pass over the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.kernels.paged_attention.batch import LayerCache, new_layer_cache
from octavo.models.attention_step import AttentionStep, attention_step
from octavo.models.batch import ModelBatch
from octavo.models.config import TransformerConfig
from octavo.models.modules import Layer, Rows


@dataclass(frozen=True, slots=True)
class Parts:
    """What ``load_model`` puts together. ``inv_freq``: float32 ``[head_dim / 2]``; ``windowed``: of window layers."""

    embedding: Tensor  # [vocab_size, hidden_size]
    embedding_scale: float  # rounded as the weights are
    layers: tuple[Layer, ...]
    norm: Rows
    head: Rows
    inv_freq: Tensor
    windowed_inv_freq: Tensor
    weight_bytes: int


class Transformer:
    """Stateless between calls: keys and values live in the caches that the caller owns."""

    def __init__(self, config: TransformerConfig, parts: Parts) -> None:
        self.config, self.parts = config, parts
        self._windows = sorted({layer.window for layer in parts.layers})

    @property
    def weight_bytes(self) -> int:
        """Of all parameters as loaded."""
        return self.parts.weight_bytes

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of the residual stream."""
        return self.parts.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights: batches and caches have to be there too."""
        return self.parts.embedding.device

    @torch.inference_mode()
    def forward(self, batch: ModelBatch, caches: list[LayerCache]) -> Tensor:
        """Logits of the wanted rows, float32 ``[S, vocab_size]``; writes the keys and values of all rows to ``caches``."""
        steps = {window: self._attention_step(batch, caches[0], window) for window in self._windows}
        x = self.parts.embedding[batch.token_ids]
        if self.parts.embedding_scale != 1.0:
            x.mul_(self.parts.embedding_scale)
        for layer, cache in zip(self.parts.layers, caches, strict=True):
            x = layer(x, steps[layer.window], cache)
        return self.parts.head(self.parts.norm(x[batch.logit_rows])).float()

    def _attention_step(self, batch: ModelBatch, cache: LayerCache, window: int) -> AttentionStep:
        inv_freq = self.parts.windowed_inv_freq if window else self.parts.inv_freq
        return attention_step(batch.attention, cache, window, inv_freq, self.dtype)

    def new_caches(self, num_blocks: int, block_size: int, kv_dtype: torch.dtype) -> list[LayerCache]:
        """Untouched caches for every layer, on the model's device."""
        c = self.config
        return [
            new_layer_cache(num_blocks, block_size, c.num_kv_heads, c.head_dim, kv_dtype, self.device)
            for _ in self.parts.layers
        ]
