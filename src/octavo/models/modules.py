"""Building blocks of a transformer: plain objects over tensors, each a function of its input.

A feature that a model lacks is ``identity`` in its place, so the model has no branches; a later transform (quantised
weights, sharding, adapters) replaces a piece by another one with the same call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

import octavo.kernels.ops as K
from octavo.kernels.paged_attention.batch import LayerCache
from octavo.models.attention_step import AttentionStep

Rows = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """In place of a feature that the model lacks."""
    return x


@dataclass(frozen=True, slots=True)
class Linear:
    """``[T, K] -> [T, N]``."""

    weight: Tensor  # [N, K]
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = K.linear(x, self.weight, self.bias)
        return product


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """Over the last dimension. ``weight``: ``[N]``, or ``[H, N]`` for one norm per head."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        normed: Tensor = K.rms_norm(x, self.weight, self.eps)
        return normed


@dataclass(frozen=True, slots=True)
class Attention:
    """Grouped-query attention with rotary embedding over the layer's cache. ``[T, hidden] -> [T, hidden]``."""

    qkv: Rows
    output: Rows
    qk_norm: Rows  # over the heads of q and k together: [T, num_heads + num_kv_heads, head_dim]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float

    def __call__(self, x: Tensor, step: AttentionStep, cache: LayerCache) -> Tensor:
        rows = x.shape[0]
        heads = self.qkv(x).view(rows, self.num_heads + 2 * self.num_kv_heads, self.head_dim)
        qk, v = self.qk_norm(heads[:, : -self.num_kv_heads]), heads[:, -self.num_kv_heads :]
        return self.output(step.attend(qk, v, cache, self.scale).view(rows, -1))


@dataclass(frozen=True, slots=True)
class MLP:
    """``down(act(gate(x)) * up(x))``."""

    gate_up: Rows
    down: Rows
    act: str

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(K.silu_mul(self.gate_up(x), self.act))


@dataclass(frozen=True, slots=True)
class Layer:
    """Pre-norm residual layer; ``post_*`` are Gemma's norms on the way back to the residual, else ``identity``."""

    input_norm: Rows
    attention: Attention
    post_attention_norm: Rows
    mlp_norm: Rows
    mlp: MLP
    post_mlp_norm: Rows
    window: int

    def __call__(self, x: Tensor, step: AttentionStep, cache: LayerCache) -> Tensor:
        """Adds to ``x`` in place and returns it."""
        x.add_(self.post_attention_norm(self.attention(self.input_norm(x), step, cache)))
        return x.add_(self.post_mlp_norm(self.mlp(self.mlp_norm(x))))
