"""Memory estimate of a model from its config alone: weights, KV cache, activations. No torch.

weights      num_parameters * bytes per element, norms and biases included
KV cache     2 (keys, values) * layers * kv heads * head size * bytes per element, for every token of every block
activations  the widest moment of one step: residual, its norm, q/k/v and their result or the two halves of the MLP
             for each row, and the float32 logits of the rows that sample
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.errors import ConfigError
from octavo.models.config import TransformerConfig

# Of weights as of keys and values; "stored" until the file says it. int4: with its scales.
BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "int4": 0.625, "stored": 2}


@dataclass(frozen=True, slots=True)
class Workload:
    """What the memory is to hold: requests of this many tokens each (prompt and output), and the largest step."""

    num_requests: int = 1
    num_tokens: int = 2048
    step_tokens: int = 512
    block_size: int = 16

    @property
    def num_blocks(self) -> int:
        """Blocks are per request: the last one of each may be part empty."""
        return self.num_requests * -(-self.num_tokens // self.block_size)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """All in bytes."""

    weight_bytes: int
    kv_bytes_per_token: int
    kv_cache_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights, KV cache and activations."""
        return self.weight_bytes + self.kv_cache_bytes + self.activation_bytes


def estimate(
    config: TransformerConfig,
    *,
    dtype: str = "float32",
    kv_dtype: str = "float16",
    workload: Workload | None = None,
    stored_bytes: int = 0,
) -> MemoryEstimate:
    """Memory of the model under ``workload``. ``stored_bytes``: of the weights in the files, for ``dtype = stored``.

    Raises ``ConfigError`` for an unknown dtype or a size below one.
    """
    load = workload or Workload()
    for field in ("num_requests", "num_tokens", "step_tokens", "block_size"):
        if getattr(load, field) < 1:
            raise ConfigError(f"{field} = {getattr(load, field)}; expected at least 1", param=field)
    size = _bytes_per_element(dtype, "dtype")
    _bytes_per_element(kv_dtype, "kv_dtype")
    per_token = kv_bytes_per_token(config, kv_dtype)
    is_stored = dtype == "stored" and stored_bytes
    return MemoryEstimate(
        weight_bytes=stored_bytes if is_stored else int(config.num_parameters * size),
        kv_bytes_per_token=per_token,
        kv_cache_bytes=load.num_blocks * load.block_size * per_token,
        activation_bytes=_activation_bytes(config, 2 if dtype in ("bfloat16", "float16") else 4, load),
    )


def kv_bytes_per_token(model: TransformerConfig, kv_dtype: str) -> int:
    """Keys and values of one token in all layers; int8 has a float32 scale for every head of each."""
    scales = 2 * 4 * model.num_layers * model.num_kv_heads if kv_dtype == "int8" else 0
    return model.kv_bytes_per_token(int(BYTES_PER_ELEMENT[kv_dtype])) + scales


def _activation_bytes(config: TransformerConfig, size: int, load: Workload) -> int:
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = 2 * queries + 2 * keys
    mlp = 3 * config.intermediate_size
    rows = load.step_tokens * (2 * config.hidden_size + max(attention, mlp)) * size
    return rows + min(load.num_requests, load.step_tokens) * config.vocab_size * 4


def _bytes_per_element(dtype: str, param: str) -> float:
    if dtype not in BYTES_PER_ELEMENT:
        raise ConfigError(f"unknown {param} {dtype!r}; known: {', '.join(BYTES_PER_ELEMENT)}", param=param)
    return BYTES_PER_ELEMENT[dtype]
