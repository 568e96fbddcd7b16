"""Small GGUF files for tests, written by the gguf library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize

from gguf import GGUFWriter

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCAB, LAYERS = 64, 4, 2, 16, 96, 40, 2
Q = GGMLQuantizationType


def add_llama_metadata(writer: GGUFWriter, arch: str = "llama", *, layers: int = LAYERS) -> None:
    """The hyperparameters of the small model above under the prefix ``arch``."""
    writer.add_block_count(layers)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{index}" for index in range(VOCAB)])


def llama_tensors(layers: int = LAYERS, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under GGUF names."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(layers):
        names = {
            "attn_norm": (HIDDEN,),
            "attn_q": (HEADS * HEAD_DIM, HIDDEN),
            "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": (HIDDEN, HEADS * HEAD_DIM),
            "ffn_norm": (HIDDEN,),
            "ffn_gate": (MLP, HIDDEN),
            "ffn_up": (MLP, HIDDEN),
            "ffn_down": (HIDDEN, MLP),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in names.items()}
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(path: Path, writer: GGUFWriter, tensors: dict[str, np.ndarray], kind: Q = Q.F32) -> Path:
    """Matrices in ``kind``, vectors in F32."""
    for name, values in tensors.items():
        if kind == Q.F32 or values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_model(path: Path, kind: Q = Q.Q8_0, seed: int = 0) -> Path:
    """A small sound llama."""
    writer = GGUFWriter(path, "llama")
    add_llama_metadata(writer)
    return write_gguf(path, writer, llama_tensors(seed=seed), kind)


def random_blocks(kind: Q, num_blocks: int, seed: int = 0) -> np.ndarray:
    """Random quantised blocks ``[num_blocks, bytes]`` whose half-precision scales are finite."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (num_blocks, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    halves = {Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,), Q.Q4_1: (0, 2), Q.Q5_1: (0, 2)}.get(kind, (0,))
    for start in halves:
        scale = rng.normal(0, 0.1, num_blocks).astype(np.float16)
        raw[:, start : start + 2] = scale.view(np.uint8).reshape(-1, 2)
    return raw


def reference_permutation(num_rows: int, num_heads: int) -> np.ndarray:
    """Where the rows of q and k of a llama GGUF come from: in each head, rows j and j + d/2 next to each other."""
    d = num_rows // num_heads
    order = [h * d + half * d // 2 + j for h in range(num_heads) for j in range(d // 2) for half in (0, 1)]
    return np.array(order)


def reference_name(name: str, *, gemma: bool) -> str:
    """The GGUF name of a Hugging Face tensor."""
    table = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_attention_layernorm": "post_attention_norm" if gemma else "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    }
    stem, _, kind = name.rpartition(".")
    if stem in table:
        return f"{table[stem]}.{kind}"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{table[part]}.{kind}"
