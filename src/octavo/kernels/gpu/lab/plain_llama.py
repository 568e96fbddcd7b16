"""Llama decode step in plain torch with random weights: the model that ``octavo kernels compile-study`` compiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octavo.kernels.gpu.lab.compile_study import Subject


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama; ``context``: tokens in the cache of each request."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    context: int

    def with_layers(self, layers: int) -> Shape:
        """The same widths; a study of a layer takes a few of them."""
        return replace(self, layers=layers)


LLAMA_3_1_8B = Shape(32, 4096, 14336, 32, 8, 128256, 1024)  # Dubey et al., 2024, table 3
TINY = Shape(2, 32, 64, 4, 2, 64, 16)


def _dtype(device: torch.device) -> torch.dtype:
    """Few CPUs compute in bfloat16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


class Layer(nn.Module):
    """One token of each request against a full cache ``[B, kv_heads, context, D]``; rotary is left to the caller's cos, sin."""

    def __init__(self, shape: Shape, factory: dict[str, Any]) -> None:
        super().__init__()
        size = shape.hidden // shape.heads
        self.shape, self.size = shape, size
        self.norms = nn.ModuleList(nn.RMSNorm(shape.hidden, eps=1e-5, **factory) for _ in range(2))
        self.qkv = nn.Linear(shape.hidden, (shape.heads + 2 * shape.kv_heads) * size, bias=False, **factory)
        self.out = nn.Linear(shape.hidden, shape.hidden, bias=False, **factory)
        self.gate_up = nn.Linear(shape.hidden, 2 * shape.intermediate, bias=False, **factory)
        self.down = nn.Linear(shape.intermediate, shape.hidden, bias=False, **factory)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor], at: Tensor) -> Tensor:
        """``x``: ``[B, hidden]``; keys and values ``[B, kv_heads, context, D]`` are written ``at`` a position, ``[1]``.

        ``index_copy_`` on whole tensors: the compiler keeps that in place. A write to a slice of a larger one it turns into a
        copy of all of the cache, which took two thirds of a compiled step.
        """
        heads = self.qkv(self.norms[0](x)).view(x.shape[0], -1, self.size)
        rotated, v = heads[:, : -self.shape.kv_heads], heads[:, -self.shape.kv_heads :]
        low, high = rotated.chunk(2, -1)
        rotated = rotated * rotation[0] + torch.cat((-high, low), -1) * rotation[1]
        keys, values = cache
        keys.index_copy_(2, at, rotated[:, self.shape.heads :].unsqueeze(2))
        values.index_copy_(2, at, v.unsqueeze(2))
        q = rotated[:, : self.shape.heads].unsqueeze(2)
        attended = F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)
        x = x + self.out(attended.reshape(x.shape[0], -1))
        gate, up = self.gate_up(self.norms[1](x)).chunk(2, -1)
        done: Tensor = x + self.down(F.silu(gate) * up)
        return done


class PlainLlama(nn.Module):
    """A decode step: ``[B]`` tokens -> logits ``[B, vocab]``."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": _dtype(device)}
        self.embed = nn.Embedding(shape.vocab, shape.hidden, **factory)
        self.layers = nn.ModuleList(Layer(shape, factory) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=1e-5, **factory)
        self.head = nn.Linear(shape.hidden, shape.vocab, bias=False, **factory)

    def forward(
        self, tokens: Tensor, rotation: tuple[Tensor, Tensor], caches: list[tuple[Tensor, Tensor]], at: Tensor
    ) -> Tensor:
        """``caches``: each layer's keys and values."""
        x = self.embed(tokens)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, rotation, cache, at)
        logits: Tensor = self.head(self.norm(x))
        return logits

    @staticmethod
    def subject(shape: Shape, device: torch.device) -> Subject:
        """The decode step, for a study."""
        model, size = PlainLlama(shape, device).eval(), shape.hidden // shape.heads

        def prepare(batch: int) -> tuple[Any, tuple[Any, ...]]:
            angles = torch.randn(size, device=device)
            rotation = (angles.cos().to(_dtype(device)), angles.sin().to(_dtype(device)))
            cache_shape = (batch, shape.kv_heads, shape.context, size)
            keys, values = (
                [torch.randn(cache_shape, dtype=_dtype(device), device=device) for _ in range(shape.layers)]
                for _ in range(2)
            )
            last = torch.tensor([shape.context - 1], device=device)
            tokens = torch.randint(shape.vocab, (batch,), device=device)
            return model, (tokens, rotation, list(zip(keys, values, strict=True)), last)

        return Subject(f"plain torch, {shape.layers} layers, decode at {shape.context} tokens", prepare)
