"""Small random checkpoints of every architecture, written by transformers itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,  # 6 * 16 != 48
    "max_position_embeddings": 256,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


def llama(**kw: Any) -> transformers.PretrainedConfig:
    return transformers.LlamaConfig(**{**SIZES, **kw})


def mistral(**kw: Any) -> transformers.PretrainedConfig:
    return transformers.MistralConfig(**{**SIZES, "sliding_window": 7, **kw})


def qwen2(**kw: Any) -> transformers.PretrainedConfig:
    return transformers.Qwen2Config(**{**SIZES, **kw})


def qwen3(**kw: Any) -> transformers.PretrainedConfig:
    return transformers.Qwen3Config(**{**SIZES, **kw})


def gemma3(**kw: Any) -> transformers.PretrainedConfig:
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    sizes = {**SIZES, "num_hidden_layers": 5, "num_key_value_heads": 3, "sliding_window": 6, "layer_types": kinds}
    return transformers.Gemma3TextConfig(**{**sizes, "query_pre_attn_scalar": 20, **kw})


VARIANTS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "llama": llama,
    "llama-tied-mha": lambda: llama(tie_word_embeddings=True, num_key_value_heads=6, head_dim=8),
    "llama-biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama3-rope": lambda: llama(rope_parameters=LLAMA3_ROPE),
    "llama-linear-rope": lambda: llama(rope_parameters=LINEAR_ROPE),
    "mistral-window": mistral,
    "mistral-global": lambda: mistral(sliding_window=None),
    "qwen2": qwen2,
    "qwen2-window": lambda: qwen2(use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen3": lambda: qwen3(num_key_value_heads=1),
    "qwen3-tied": lambda: qwen3(tie_word_embeddings=True),
    "gemma3": gemma3,
    "gemma3-untied-scaled-rope": lambda: gemma3(tie_word_embeddings=False, rope_parameters=GEMMA_ROPE),
}


def write(
    folder: Path, config: transformers.PretrainedConfig, dtype: torch.dtype = torch.float32, **kw: Any
) -> transformers.PreTrainedModel:
    """Save a random model; norms, biases and logits are spread out so that mistakes in them show."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            else:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
    model.save_pretrained(folder, **kw)
    return model


def expected(reference: Any, tokens: list[int]) -> torch.Tensor:
    """The reference's float32 logits ``[T, vocab]``."""
    with torch.no_grad():
        return reference(torch.tensor([tokens])).logits[0].float()


def prompts(*lengths: int) -> list[list[int]]:
    """Random token ids, one list a length; the same ones for as many lengths."""
    generator = torch.Generator().manual_seed(len(lengths))
    return [torch.randint(0, 101, (n,), generator=generator).tolist() for n in lengths]
