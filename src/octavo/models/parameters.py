"""The tensors of a model's layers (q, k, v and gate, up merged), and their loading from a weight source.

Matrices that read the same input are merged (q, k, v; gate, up), so a layer has four products. Every source tensor is
read straight into its place, so loading needs the model's own memory and little more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.models.config import TransformerConfig
from octavo.models.shapes import EMBEDDING, FINAL_NORM, HEAD, layer_shapes, outer_shapes
from octavo.models.weights import WeightSource


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of the model, made of source tensors one below the other."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the merged tensor: rows add up."""
        return (sum(shape[0] for shape in self.shapes), *self.shapes[0][1:])


_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
_LAYER_ROLES: dict[str, tuple[str, ...]] = {
    "qkv": tuple(f"{name}.weight" for name in _QKV),
    "qkv_bias": tuple(f"{name}.bias" for name in _QKV),
    "output": ("self_attn.o_proj.weight",),
    "output_bias": ("self_attn.o_proj.bias",),
    "q_norm": ("self_attn.q_norm.weight",),
    "k_norm": ("self_attn.k_norm.weight",),
    "gate_up": tuple(f"{name}.weight" for name in _GATE_UP),
    "gate_up_bias": tuple(f"{name}.bias" for name in _GATE_UP),
    "down": ("mlp.down_proj.weight",),
    "down_bias": ("mlp.down_proj.bias",),
    "input_norm": ("input_layernorm.weight",),
}
_NORMS = {"mlp_norm": ("post_attention_layernorm.weight",)}
_NORMS_WITH_POST = {
    "post_attention_norm": ("post_attention_layernorm.weight",),
    "mlp_norm": ("pre_feedforward_layernorm.weight",),
    "post_mlp_norm": ("post_feedforward_layernorm.weight",),
}


def layer_parts(config: TransformerConfig, layer: int) -> dict[str, Part]:
    """The tensors of one layer by their role; roles that a config does not have are absent."""
    shapes, prefix = layer_shapes(config), f"model.layers.{layer}."
    roles = _LAYER_ROLES | (_NORMS_WITH_POST if config.post_norms else _NORMS)
    return {
        role: Part(tuple(prefix + name for name in names), tuple(shapes[name] for name in names))
        for role, names in roles.items()
        if names[0] in shapes
    }


def outer_parts(config: TransformerConfig) -> dict[str, Part]:
    """The tensors outside the layers. The largest comes first: it is read while little else is in memory."""
    shapes = outer_shapes(config)
    roles = {"embedding": EMBEDDING, "head": HEAD, "norm": FINAL_NORM}
    return {role: Part((name,), (shapes[name],)) for role, name in roles.items() if name in shapes}


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
