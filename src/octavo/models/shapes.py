"""Which tensors a model of this config consists of, by their Hugging Face names, and their shapes. No torch."""

from __future__ import annotations

from octavo.models.config import TransformerConfig

Shape = tuple[int, ...]


def tensor_shapes(config: TransformerConfig) -> dict[str, Shape]:
    """Every tensor that a checkpoint must hold."""
    shapes = outer_shapes(config)
    for layer in range(config.num_layers):
        shapes.update({f"model.layers.{layer}.{name}": shape for name, shape in layer_shapes(config).items()})
    return shapes


def outer_shapes(config: TransformerConfig) -> dict[str, Shape]:
    """The tensors outside the layers; ``lm_head.weight`` only if it is not tied to the embeddings."""
    matrix = (config.vocab_size, config.hidden_size)
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": matrix, "model.norm.weight": (config.hidden_size,)}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = matrix
    return shapes


def layer_shapes(config: TransformerConfig) -> dict[str, Shape]:
    """The tensors of one layer, without the ``model.layers.N.`` in front."""
    h, d, m = config.hidden_size, config.head_dim, config.intermediate_size
    q, kv = config.num_heads * d, config.num_kv_heads * d
    attention: dict[str, Shape] = {"q_proj": (q, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, q)}
    mlp: dict[str, Shape] = {"gate_proj": (m, h), "up_proj": (m, h), "down_proj": (h, m)}
    shapes: dict[str, Shape] = {}
    for name, shape in attention.items():
        shapes[f"self_attn.{name}.weight"] = shape
        if config.attention_output_bias if name == "o_proj" else config.qkv_bias:
            shapes[f"self_attn.{name}.bias"] = shape[:1]
    for name, shape in mlp.items():
        shapes[f"mlp.{name}.weight"] = shape
        if config.mlp_bias:
            shapes[f"mlp.{name}.bias"] = shape[:1]
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config.post_norms:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes.update({f"{norm}.weight": (h,) for norm in norms})
    if config.qk_norm:
        shapes.update({"self_attn.q_norm.weight": (d,), "self_attn.k_norm.weight": (d,)})
    return shapes
