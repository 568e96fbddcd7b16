"""From a weight source to the tensors of a model: which tensors there must be, and where each of them goes.

Matrices that read the same input are merged (q, k, v; gate, up), so a layer has four products. Every source tensor is
read straight into its place, so loading needs the model's own memory and little more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.errors import WeightFormatError
from octavo.models.config import TransformerConfig
from octavo.models.weights import WeightSource

IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)  # old checkpoints carry these; they are computed
EMBEDDING, HEAD, FINAL_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of the model, made of source tensors one below the other."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(shape[0] for shape in self.shapes), *self.shapes[0][1:])


def layer_parts(config: TransformerConfig, layer: int) -> dict[str, Part]:
    """The tensors of one layer by their role; roles that a config does not have are absent."""
    h, d, inner = config.hidden_size, config.head_dim, config.intermediate_size
    q, kv, prefix = config.num_heads * d, config.num_kv_heads * d, f"model.layers.{layer}."

    def part(suffix: str, *sources: tuple[str, tuple[int, ...]]) -> Part:
        return Part(tuple(f"{prefix}{name}.{suffix}" for name, _ in sources), tuple(shape for _, shape in sources))

    qkv = [(f"self_attn.{name}_proj", rows) for name, rows in (("q", q), ("k", kv), ("v", kv))]
    gate_up = [("mlp.gate_proj", inner), ("mlp.up_proj", inner)]
    norms = {"input_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if config.post_norms:
        norms["post_attention_norm"] = "post_attention_layernorm"
        norms["mlp_norm"], norms["post_mlp_norm"] = "pre_feedforward_layernorm", "post_feedforward_layernorm"
    parts = {
        "qkv": part("weight", *((name, (rows, h)) for name, rows in qkv)),
        "output": part("weight", ("self_attn.o_proj", (h, q))),
        "gate_up": part("weight", *((name, (rows, h)) for name, rows in gate_up)),
        "down": part("weight", ("mlp.down_proj", (h, inner))),
        **{role: part("weight", (name, (h,))) for role, name in norms.items()},
    }
    if config.qkv_bias:
        parts["qkv_bias"] = part("bias", *((name, (rows,)) for name, rows in qkv))
    if config.attention_output_bias:
        parts["output_bias"] = part("bias", ("self_attn.o_proj", (h,)))
    if config.mlp_bias:
        parts["gate_up_bias"] = part("bias", *((name, (rows,)) for name, rows in gate_up))
        parts["down_bias"] = part("bias", ("mlp.down_proj", (h,)))
    if config.qk_norm:
        parts["q_norm"] = part("weight", ("self_attn.q_norm", (d,)))
        parts["k_norm"] = part("weight", ("self_attn.k_norm", (d,)))
    return parts


def outer_parts(config: TransformerConfig) -> dict[str, Part]:
    """The tensors outside the layers. The largest comes first: it is read while little else is in memory."""
    embedding = (config.vocab_size, config.hidden_size)
    parts = {"embedding": Part((EMBEDDING,), (embedding,))}
    if not config.tie_word_embeddings:
        parts["head"] = Part((HEAD,), (embedding,))
    parts["norm"] = Part((FINAL_NORM,), ((config.hidden_size,),))
    return parts


def check_names_and_shapes(source: WeightSource) -> None:
    """Hold a source to its config before anything is allocated. Raises ``WeightFormatError`` naming the difference."""
    config = source.config
    groups = [outer_parts(config), *(layer_parts(config, layer) for layer in range(config.num_layers))]
    expected = dict(_tensors(part for group in groups for part in group.values()))
    found = set(source.names())
    if missing := [name for name in expected if name not in found]:
        raise WeightFormatError(f"{len(missing)} of {len(expected)} tensors are missing, the first is {missing[0]}")
    allowed = {HEAD} if config.tie_word_embeddings else set()
    extra = sorted(n for n in found - expected.keys() - allowed if not n.endswith(IGNORED_SUFFIXES))
    if extra:
        raise WeightFormatError(
            f"{len(extra)} tensors have no place in this {config.architecture} model, the first is {extra[0]}"
        )
    for name, shape in expected.items():
        if (actual := tuple(source.shape(name))) != shape:
            raise WeightFormatError(f"{name} has shape {actual}; its config asks for {shape}")


def _tensors(parts: Iterable[Part]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in parts:
        yield from zip(part.names, part.shapes, strict=True)


def read_parts(
    source: WeightSource, parts: dict[str, Part], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Read tensors by role, converted to ``dtype`` on ``device``."""
    return {role: _read(source, part, dtype, device) for role, part in parts.items()}


def _read(source: WeightSource, part: Part, dtype: torch.dtype, device: torch.device) -> Tensor:
    out, row = torch.empty(part.shape, dtype=dtype, device=device), 0
    direct = dtype is torch.float32 and device.type == "cpu"
    for name, shape in zip(part.names, part.shapes, strict=True):
        rows = out[row : row + shape[0]]
        if direct:
            source.read_into(name, rows.numpy())
        else:
            rows.copy_(torch.from_numpy(source.get(name)))
        row += shape[0]
    return out
