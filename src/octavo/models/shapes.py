"""Expected tensors of a model by config: their Hugging Face names and shapes. No torch."""

from __future__ import annotations

from octavo.errors import WeightFormatError
from octavo.models.config import TransformerConfig
from octavo.models.weights import WeightSource

Shape = tuple[int, ...]
IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)  # old checkpoints carry these; they are computed
EMBEDDING, HEAD, FINAL_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


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


def check_names_and_shapes(source: WeightSource) -> None:
    """Hold a source to its config before anything is allocated. Raises ``WeightFormatError`` naming the difference."""
    config = source.config
    expected = tensor_shapes(config)
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
