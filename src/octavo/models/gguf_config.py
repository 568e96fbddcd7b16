"""GGUF metadata -> ``TransformerConfig``. Key names: ggml/docs/gguf.md and the writers of the llama.cpp project.

A value that would change the model's answers and that Octavo does not honour raises ``UnsupportedModelError``; a value
that no sound file holds raises ``WeightFormatError``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from octavo.errors import UnsupportedModelError, WeightFormatError
from octavo.gguf.header import GGUFHeader
from octavo.models.config import RopeScaling, TransformerConfig

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
MAX_POSITION = 1 << 24
MAX_LAYERS = 1 << 12
ROPE_FREQS = "rope_freqs.weight"  # one divisor for each rotary frequency: how llama.cpp stores Llama 3's scaling

# Gemma 3: five layers with a window, then a global one; windowed layers keep this theta. GGUF files say neither.
GEMMA3_PATTERN = 6
GEMMA3_LOCAL_THETA = 10000.0
GEMMA3_27B_LAYERS = 62  # the only size whose query_pre_attn_scalar is hidden / heads (168), not head_dim


@dataclass(frozen=True, slots=True)
class _Keys:
    """Hyperparameters of one file, under its architecture's prefix."""

    header: GGUFHeader
    architecture: str

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer; an array (one value per layer) is one if all its values agree."""
        name = f"{self.architecture}.{key}"
        if isinstance(self.header.metadata.get(name), np.ndarray):
            values = {int(value) for value in self.header.metadata.numbers(name)}
            if len(values) != 1:
                raise UnsupportedModelError(
                    f"{name} differs between layers ({sorted(values)[:8]}); octavo needs one value"
                )
            value = values.pop()
        else:
            found = self.header.metadata.integer(name, default)
            value = self.header.metadata.need_integer(name) if found is None else found
        if not 0 < value <= 1 << 32:
            raise WeightFormatError(f"metadata key {name!r} is {value}; expected a positive size")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive hyperparameter of the architecture. Raises ``WeightFormatError`` if it is missing without a default."""
        name = f"{self.architecture}.{key}"
        found = self.header.metadata.number(name, default)
        value = self.header.metadata.need_number(name) if found is None else found
        if value <= 0:
            raise WeightFormatError(f"metadata key {name!r} is {value}; expected a positive number")
        return value

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.header.metadata

    def has_tensor(self, name: str) -> bool:
        return name in self.header.tensors


def config_from_header(header: GGUFHeader, read_tensor: Callable[[str], np.ndarray]) -> TransformerConfig:
    """The config that the header describes. ``read_tensor`` reads a small float tensor (the rotary factors)."""
    architecture = header.metadata.need_text("general.architecture")
    if architecture not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"GGUF architecture {architecture!r} is not supported; octavo runs {', '.join(ARCHITECTURES)}"
        )
    keys = _Keys(header, architecture)
    _refuse_unknown_features(keys)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise WeightFormatError("there is no two-dimensional token_embd.weight")
    hidden, num_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", hidden // num_heads or None)
    _check_head_dims(keys, head_dim)
    num_layers = _bounded(keys, "block_count", MAX_LAYERS)
    config = TransformerConfig(
        architecture=architecture,
        vocab_size=embedding.shape[0],
        hidden_size=hidden,
        intermediate_size=keys.integer("feed_forward_length"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=keys.integer("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        max_position=_bounded(keys, "context_length", MAX_POSITION),
        rms_norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
        rope_theta=keys.number("rope.freq_base", 10000.0),
        rope_scaling=_rope_scaling(keys, head_dim, read_tensor),
        tie_word_embeddings=not keys.has_tensor("output.weight"),
        qkv_bias=keys.has_tensor("blk.0.attn_q.bias"),
        attention_output_bias=keys.has_tensor("blk.0.attn_output.bias"),
        mlp_bias=keys.has_tensor("blk.0.ffn_gate.bias"),
        qk_norm=keys.has_tensor("blk.0.attn_q_norm.weight"),
        windows=_windows(keys, num_layers),
    )
    if config.num_heads % config.num_kv_heads or head_dim % 2:
        raise WeightFormatError(
            f"{config.num_heads} query heads, {config.num_kv_heads} key/value heads of {head_dim} do not fit together"
        )
    return _with_gemma_features(config, keys) if architecture == "gemma3" else config


def _refuse_unknown_features(keys: _Keys) -> None:
    for key in ("expert_count", "attn_logit_softcapping", "final_logit_softcapping", "attention.q_lora_rank"):
        name = f"{keys.architecture}.{key}"
        if keys.has(key) and keys.header.metadata.number(name):
            raise UnsupportedModelError(
                f"{name} = {keys.header.metadata[name]}: octavo does not support this feature yet"
            )


def _check_head_dims(keys: _Keys, head_dim: int) -> None:
    for key in ("attention.value_length", "rope.dimension_count"):
        if (value := keys.integer(key, head_dim)) != head_dim:
            raise UnsupportedModelError(f"{keys.architecture}.{key} is {value}; octavo needs the head size, {head_dim}")


def _bounded(keys: _Keys, key: str, limit: int) -> int:
    if (value := keys.integer(key)) > limit:
        raise WeightFormatError(f"metadata key '{keys.architecture}.{key}' is {value}; the limit is {limit}")
    return value


def _rope_scaling(keys: _Keys, head_dim: int, read_tensor: Callable[[str], np.ndarray]) -> RopeScaling | None:
    kind = keys.header.metadata.text(f"{keys.architecture}.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise UnsupportedModelError(f"RoPE scaling {kind!r} is not supported yet; octavo knows linear and Llama 3's")
    if keys.has_tensor(ROPE_FREQS):
        factors = read_tensor(ROPE_FREQS)
        if factors.shape != (head_dim // 2,) or not (factors > 0).all():
            raise WeightFormatError(f"{ROPE_FREQS} must hold {head_dim // 2} positive factors")
        return RopeScaling(kind="factors", factor=1.0, factors=tuple(float(factor) for factor in factors))
    legacy = keys.number("rope.scale_linear", 1.0)
    factor = keys.number("rope.scaling.factor", legacy) if kind == "linear" else legacy
    return RopeScaling(kind="linear", factor=factor) if factor != 1.0 else None


def _windows(keys: _Keys, num_layers: int) -> tuple[int, ...]:
    """Per layer; empty: all global. A window as long as the context is none."""
    window = keys.integer("attention.sliding_window") if keys.has("attention.sliding_window") else 0
    if not window or window >= keys.integer("context_length"):
        return ()
    if keys.architecture == "llama":  # Mistral 7B v0.1: every layer
        return (window,) * num_layers
    if keys.architecture != "gemma3":
        raise UnsupportedModelError(f"octavo does not know which layers of {keys.architecture} use the sliding window")
    name = "gemma3.attention.sliding_window_pattern"
    if isinstance(keys.header.metadata.get(name), np.ndarray):  # one flag a layer: windowed
        flags = keys.header.metadata.numbers(name)
        if len(flags) != num_layers:
            raise WeightFormatError(f"{name} has {len(flags)} entries for {num_layers} layers")
        return tuple(window if flag else 0 for flag in flags)
    pattern = keys.integer("attention.sliding_window_pattern", GEMMA3_PATTERN)
    return tuple(0 if (layer + 1) % pattern == 0 else window for layer in range(num_layers))


def _with_gemma_features(config: TransformerConfig, keys: _Keys) -> TransformerConfig:
    values = {field: getattr(config, field) for field in config.__struct_fields__}
    is_27b = config.num_layers == GEMMA3_27B_LAYERS
    values.update(
        rope_local_theta=keys.number("rope.freq_base_swa", GEMMA3_LOCAL_THETA),
        post_norms=True,
        embedding_scale=config.hidden_size**0.5,
        hidden_act="gelu_tanh",
        attention_scale=(config.hidden_size / config.num_heads) ** -0.5 if is_27b else config.head_dim**-0.5,
    )
    return TransformerConfig(**values)
