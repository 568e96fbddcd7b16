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

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


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
) -> MemoryEstimate:
    """Memory of the model under ``workload``. Raises ``ConfigError`` for an unknown dtype or a size below one."""
    load = workload or Workload()
    for field in ("num_requests", "num_tokens", "step_tokens", "block_size"):
        if getattr(load, field) < 1:
            raise ConfigError(f"{field} = {getattr(load, field)}; expected at least 1", param=field)
    size = _bytes_per_element(dtype, "dtype")
    per_token = config.kv_bytes_per_token(_bytes_per_element(kv_dtype, "kv_dtype"))
    return MemoryEstimate(
        weight_bytes=config.num_parameters * size,
        kv_bytes_per_token=per_token,
        kv_cache_bytes=load.num_blocks * load.block_size * per_token,
        activation_bytes=_activation_bytes(config, size, load),
    )


def _activation_bytes(config: TransformerConfig, size: int, load: Workload) -> int:
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = 2 * queries + 2 * keys
    mlp = 3 * config.intermediate_size
    rows = load.step_tokens * (2 * config.hidden_size + max(attention, mlp)) * size
    return rows + min(load.num_requests, load.step_tokens) * config.vocab_size * 4


def _bytes_per_element(dtype: str, param: str) -> int:
    if dtype not in BYTES_PER_ELEMENT:
        raise ConfigError(f"unknown {param} {dtype!r}; known: {', '.join(BYTES_PER_ELEMENT)}", param=param)
    return BYTES_PER_ELEMENT[dtype]
