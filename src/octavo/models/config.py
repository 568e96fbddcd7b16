"""``TransformerConfig``: the hyperparameters of every supported architecture. No torch: `models show` reads it instantly."""

from __future__ import annotations

import msgspec


class RopeScaling(msgspec.Struct, frozen=True, kw_only=True):
    """How RoPE frequencies are stretched beyond the trained context.

    ``linear``: positions / factor. ``llama3``: Llama 3.1's piecewise rule (high frequencies kept, low ones divided by
    ``factor``, a smooth ramp between). ``factors``: rotary frequency ``i`` is divided by ``factors[i]`` (how GGUF files
    store Llama 3's rule: already worked out).
    """

    kind: str  # "linear" | "llama3" | "factors"
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192
    factors: tuple[float, ...] = ()  # head_dim / 2 of them


class TransformerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder-only transformer. Model code reads these features and never asks for the architecture's name."""

    architecture: str  # key of the architecture table: llama, mistral, qwen2, qwen3, gemma3
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rope_local_theta: float | None = None  # Gemma 3: theta of the layers with a window (never scaled)
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False  # RMSNorm over each head of q and k before RoPE
    post_norms: bool = False  # Gemma's norms after attention and after the MLP, before the residual add
    norm_weight_offset: float = 0.0  # Gemma stores w and means 1 + w; added once at load from safetensors
    embedding_scale: float = 1.0
    hidden_act: str = "silu"  # "silu" | "gelu_tanh"
    attention_scale: float = 0.0  # 0: 1/sqrt(head_dim)
    windows: tuple[int, ...] = ()  # per layer: sliding window in tokens, 0 = global; empty = all global

    @property
    def scale(self) -> float:
        """Of attention scores before the softmax."""
        return self.attention_scale or self.head_dim**-0.5

    def window(self, layer: int) -> int:
        """Sliding window of a layer in tokens; 0: global attention."""
        return self.windows[layer] if self.windows else 0

    @property
    def num_parameters(self) -> int:
        """Weights, counted from the shapes (norms and biases included)."""
        h, d = self.hidden_size, self.head_dim
        q, kv = self.num_heads * d, self.num_kv_heads * d
        attention = h * (q + 2 * kv) + q * h
        attention += (q + 2 * kv) * self.qkv_bias + h * self.attention_output_bias + 2 * d * self.qk_norm
        mlp = 3 * h * self.intermediate_size + (2 * self.intermediate_size + h) * self.mlp_bias
        norms = (4 if self.post_norms else 2) * h
        embeddings = self.vocab_size * h * (1 if self.tie_word_embeddings else 2)
        return self.num_layers * (attention + mlp + norms) + embeddings + h

    def kv_bytes_per_token(self, bytes_per_element: int) -> int:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes_per_element
