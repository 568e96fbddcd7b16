"""Architecture table: Hugging Face ``config.json`` -> ``TransformerConfig``, one entry per architecture.

What an architecture adds to the plain Llama is said here, as features of the config; model code reads those features.
A feature that is not computed is refused by name, never ignored. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from octavo.errors import UnsupportedModelError, WeightFormatError
from octavo.models.config import TransformerConfig
from octavo.models.rope import rope_fields

Json = Mapping[str, Any]

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_tanh": "gelu_tanh"}
QUANTIZED = "weights quantised by {!r}: safetensors weights must be F32, F16 or BF16 (quantised ones: GGUF)"


def _plain(config: Json) -> dict[str, Any]:
    return {}


def _llama(config: Json) -> dict[str, Any]:
    bias = bool(config.get("attention_bias", False))
    return {"qkv_bias": bias, "attention_output_bias": bias, "mlp_bias": bool(config.get("mlp_bias", False))}


def _mistral(config: Json) -> dict[str, Any]:
    return {"windows": _same_window(config.get("sliding_window"), config)}


def _qwen2(config: Json) -> dict[str, Any]:
    return {"qkv_bias": True, "windows": _qwen_windows(config)}


def _qwen3(config: Json) -> dict[str, Any]:
    return {**_llama(config), "mlp_bias": False, "qk_norm": True, "windows": _qwen_windows(config)}


def _gemma3(config: Json) -> dict[str, Any]:
    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(cap):
            raise UnsupportedModelError(f"{cap}={config[cap]} is not supported; supported: no soft capping (null)")
    if config.get("use_bidirectional_attention"):
        raise UnsupportedModelError("use_bidirectional_attention=true is not supported; supported: causal attention")
    window, pattern = int(config["sliding_window"]), int(config.get("sliding_window_pattern") or 6)
    default = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(_layers(config))]
    return {
        **_llama(config),
        "mlp_bias": False,
        "qk_norm": True,
        "post_norms": True,
        "norm_weight_offset": 1.0,
        "embedding_scale": float(config["hidden_size"]) ** 0.5,
        "attention_scale": float(config["query_pre_attn_scalar"]) ** -0.5,
        "windows": _windows_of_types(config.get("layer_types") or default, window, config),
    }


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row: the model types it answers to, its class's defaults, and what it adds to a plain transformer."""

    model_types: tuple[str, ...]
    features: Callable[[Json], dict[str, Any]]
    defaults: Json = field(default_factory=dict)  # what transformers leaves out of config.json for this class


TABLE: Mapping[str, Architecture] = {
    "llama": Architecture(("llama",), _llama),
    "mistral": Architecture(("mistral",), _mistral, {"num_key_value_heads": 8, "sliding_window": 4096}),
    "qwen2": Architecture(("qwen2",), _qwen2),
    "qwen3": Architecture(("qwen3",), _qwen3, {"head_dim": 128}),
    "gemma3": Architecture(
        ("gemma3_text",),
        _gemma3,
        {
            "vocab_size": 262208,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 131072,
            "query_pre_attn_scalar": 256,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
        },
    ),
}


def config_from_hf(config: Json) -> TransformerConfig:
    """Read a parsed ``config.json``.

    Raises ``UnsupportedModelError`` for what Octavo cannot run (it names what it can) and ``WeightFormatError`` for a
    config that lacks a field or contradicts itself.
    """
    name, entry = _entry(config)
    config = {**entry.defaults, **config}
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method", "?") if isinstance(quantization, Mapping) else quantization
        raise UnsupportedModelError(QUANTIZED.format(method))
    try:
        return _checked(TransformerConfig(architecture=name, **_common(config), **entry.features(config)))
    except KeyError as error:
        raise WeightFormatError(f"config.json of a {name} model lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise WeightFormatError(f"config.json of a {name} model has a value of the wrong type: {error}") from None


def _entry(config: Json) -> tuple[str, Architecture]:
    model_type = config.get("model_type")
    for name, entry in TABLE.items():
        if model_type in entry.model_types:
            return name, entry
    supported = ", ".join(t for entry in TABLE.values() for t in entry.model_types)
    if isinstance(config.get("text_config"), Mapping):
        raise UnsupportedModelError(
            f"model type {model_type!r} is multimodal; only text models are supported: {supported} "
            "(for Gemma 3 take a text-only checkpoint, Gemma3ForCausalLM)"
        )
    raise UnsupportedModelError(f"model type {model_type!r} is not supported; supported: {supported}")


def _common(config: Json) -> dict[str, Any]:
    """The fields that every architecture shares."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    act = config.get("hidden_activation") or config.get("hidden_act") or "silu"
    if act not in ACTIVATIONS:
        raise UnsupportedModelError(f"activation {act!r} is not supported; supported: {', '.join(ACTIVATIONS)}")
    return {
        "vocab_size": int(config["vocab_size"]),
        "hidden_size": hidden,
        "intermediate_size": int(config["intermediate_size"]),
        "num_layers": _layers(config),
        "num_heads": heads,
        "num_kv_heads": int(config.get("num_key_value_heads") or heads),
        "head_dim": int(config.get("head_dim") or hidden // max(1, heads)),
        "max_position": int(config.get("max_position_embeddings") or 2048),
        "rms_norm_eps": float(config.get("rms_norm_eps", 1e-6)),
        "tie_word_embeddings": bool(config.get("tie_word_embeddings", False)),
        "hidden_act": ACTIVATIONS[act],
        **rope_fields(config),
    }


def _layers(config: Json) -> int:
    return int(config["num_hidden_layers"])


def _same_window(window: Any, config: Json) -> tuple[int, ...]:
    return (int(window),) * _layers(config) if window else ()


def _qwen_windows(config: Json) -> tuple[int, ...]:
    if not config.get("use_sliding_window") or not config.get("sliding_window"):
        return ()
    full = int(config.get("max_window_layers", 28))
    default = ["full_attention" if i < full else "sliding_attention" for i in range(_layers(config))]
    return _windows_of_types(config.get("layer_types") or default, int(config["sliding_window"]), config)


def _windows_of_types(types: list[str], window: int, config: Json) -> tuple[int, ...]:
    if unknown := sorted(set(types) - {"full_attention", "sliding_attention"}):
        raise UnsupportedModelError(
            f"layer type {unknown[0]!r} is not supported; supported: full_attention, sliding_attention"
        )
    if len(types) != _layers(config):
        raise WeightFormatError(f"config.json names {len(types)} layer_types for {_layers(config)} layers")
    return tuple(window if kind == "sliding_attention" else 0 for kind in types)


def _checked(config: TransformerConfig) -> TransformerConfig:
    """Refuse sizes that no model has, before anything is allocated by them."""
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")
    for name in (*sizes, "max_position"):
        if not 0 < (value := getattr(config, name)) < 1 << 28:
            raise WeightFormatError(f"config.json says {name}={value}; expected a positive number of a real model")
    if config.num_heads % config.num_kv_heads:
        raise WeightFormatError(
            f"config.json says {config.num_heads} attention heads over {config.num_kv_heads} key/value heads; "
            "the first must be a multiple of the second"
        )
    if config.head_dim % 2 or any(window < 0 for window in config.windows):
        raise WeightFormatError("config.json says an odd head_dim or a negative sliding window")
    return config
