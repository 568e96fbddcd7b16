"""Construction of a ``Transformer`` from a weight source; a feature that the config lacks becomes ``identity``."""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.models.config import TransformerConfig
from octavo.models.modules import MLP, Attention, Layer, Linear, RMSNorm, Rows, identity
from octavo.models.parameters import layer_parts, outer_parts, read_parts
from octavo.models.rope import inverse_frequencies
from octavo.models.shapes import check_names_and_shapes
from octavo.models.transformer import Parts, Transformer
from octavo.models.weights import WeightSource


@torch.inference_mode()
def assemble(source: WeightSource, dtype: torch.dtype, device: torch.device) -> Transformer:
    """Check the source, then read it tensor by tensor. Raises ``WeightFormatError``."""
    check_names_and_shapes(source)
    config = source.config
    outer = read_parts(source, outer_parts(config), dtype, device)
    weight_bytes = _num_bytes(outer)
    layers = []
    for index in range(config.num_layers):
        tensors = read_parts(source, layer_parts(config, index), dtype, device)
        weight_bytes += _num_bytes(tensors)
        layers.append(_layer(config, index, tensors))
    parts = Parts(
        embedding=outer["embedding"],
        embedding_scale=float(torch.tensor(config.embedding_scale, dtype=dtype)),
        layers=tuple(layers),
        norm=RMSNorm(outer["norm"], config.rms_norm_eps),
        head=Linear(outer.get("head", outer["embedding"])),
        inv_freq=_inv_freq(config, device, windowed=False),
        windowed_inv_freq=_inv_freq(config, device, windowed=True),
        weight_bytes=weight_bytes,
    )
    return Transformer(config, parts)


def _layer(config: TransformerConfig, index: int, tensors: dict[str, Tensor]) -> Layer:
    def norm(role: str) -> Rows:
        return RMSNorm(tensors[role], config.rms_norm_eps) if role in tensors else identity

    def linear(role: str) -> Rows:
        return Linear(tensors[role], tensors.get(f"{role}_bias"))

    return Layer(
        input_norm=norm("input_norm"),
        attention=Attention(
            qkv=linear("qkv"),
            output=linear("output"),
            qk_norm=_qk_norm(config, tensors),
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            scale=config.scale,
        ),
        post_attention_norm=norm("post_attention_norm"),
        mlp_norm=norm("mlp_norm"),
        mlp=MLP(linear("gate_up"), linear("down"), config.hidden_act),
        post_mlp_norm=norm("post_mlp_norm"),
        window=config.window(index),
    )


def _qk_norm(config: TransformerConfig, tensors: dict[str, Tensor]) -> Rows:
    """The norms of q and k as one over all their heads."""
    if not config.qk_norm:
        return identity
    q, k = tensors["q_norm"], tensors["k_norm"]
    weight = torch.cat((q.expand(config.num_heads, -1), k.expand(config.num_kv_heads, -1)))
    return RMSNorm(weight, config.rms_norm_eps)


def _num_bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _inv_freq(config: TransformerConfig, device: torch.device, *, windowed: bool) -> Tensor:
    return torch.from_numpy(inverse_frequencies(config, windowed=windowed)).to(device, torch.float32)
