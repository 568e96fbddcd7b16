"""GGUF files as models: exact dequantisation, Hugging Face names and layout, configs of every architecture, refusals."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf.constants import GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from gguf import GGUFWriter
from octavo.errors import UnsupportedModelError, WeightFormatError
from octavo.gguf.header import TENSOR_TYPES, TensorInfo
from octavo.models import dequantize as chunked
from octavo.models.config import TransformerConfig
from octavo.models.gguf import GGUFWeights, canonical_name, read_gguf_config, unpermute_rows
from octavo.models.rope import inverse_frequencies
from support import tiny_models
from support.gguf_files import (
    HEAD_DIM,
    HIDDEN,
    MLP,
    add_llama_metadata,
    llama_tensors,
    random_blocks,
    reference_name,
    reference_permutation,
    write_gguf,
    write_model,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PLAIN_TYPES = (Q.F32, Q.F16, Q.BF16)


# --- dequantisation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_id", TENSOR_TYPES)
@pytest.mark.parametrize("shape", [(1, 256), (3, 512), (150, 1024)])
def test_chunks_give_exactly_the_librarys_values(type_id: int, shape: tuple[int, ...], monkeypatch: Any) -> None:
    """From one block up to several chunks on several threads; the last chunk is a short one."""
    monkeypatch.setattr(chunked, "usable_cores", lambda: 3)
    kind, (_, block_elements, block_bytes) = Q(type_id), TENSOR_TYPES[type_id]
    num_blocks = shape[0] * shape[1] // block_elements
    if kind in PLAIN_TYPES:
        values = np.random.default_rng(1).normal(0, 2, shape).astype(np.float32)
        raw = np.ascontiguousarray(quantize(values, kind)).view(np.uint8).reshape(-1)
    else:
        raw = random_blocks(kind, num_blocks).reshape(-1)
    expected = dequantize(raw.reshape(shape[0], -1), kind)
    out = np.full(shape, np.nan, np.float32)
    info = TensorInfo("t", shape, type_id, 0, num_blocks * block_bytes)
    chunked.dequantize_into(info, lambda start, size: raw[start : start + size], out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1])
def test_written_quantised_and_read_back(tmp_path: Path, kind: Q) -> None:
    """Through a file; the error is within half a step of the type's grid."""
    tensors = llama_tensors()
    path = write_gguf(tmp_path / "m.gguf", model_writer(tmp_path / "m.gguf"), tensors, kind)
    weights = GGUFWeights(path)
    got, wanted = weights.get("model.layers.1.mlp.down_proj.weight"), tensors["blk.1.ffn_down.weight"]
    np.testing.assert_array_equal(got, dequantize(quantize(wanted, kind), kind))
    steps = {Q.Q8_0: 255, Q.Q4_0: 15, Q.Q4_1: 15, Q.Q5_0: 31, Q.Q5_1: 31}[kind]
    blocks = wanted.reshape(-1, 32)
    widest = 2 * np.abs(blocks).max(axis=1, keepdims=True) / steps
    assert (np.abs(got.reshape(-1, 32) - blocks) <= 0.6 * widest + (widest if kind in (Q.Q4_0, Q.Q5_0) else 0)).all()
    weights.close()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tensors = llama_tensors()
    tensors["blk.0.ffn_up.weight"][3, 5] = np.inf
    weights = GGUFWeights(write_gguf(tmp_path / "m.gguf", model_writer(tmp_path / "m.gguf"), tensors))
    with pytest.raises(WeightFormatError, match=r"'blk\.0\.ffn_up\.weight' holds values that are not finite"):
        weights.get("model.layers.0.mlp.up_proj.weight")
    assert np.isfinite(weights.get("model.layers.0.mlp.gate_proj.weight")).all()
    weights.close()


def test_reading_needs_no_memory_beside_the_destination(tmp_path: Path, monkeypatch: Any) -> None:
    """A few chunks a thread, whatever the tensor's size: neither its bytes nor a second float32 copy."""
    monkeypatch.setattr(chunked, "usable_cores", lambda: 2)
    writer, tensors = GGUFWriter(tmp_path / "m.gguf", "llama"), llama_tensors()
    add_llama_metadata(writer)
    tensors["token_embd.weight"] = np.random.default_rng(0).normal(0, 1, (60_000, HIDDEN)).astype(np.float32)
    weights = GGUFWeights(write_gguf(tmp_path / "m.gguf", writer, tensors, Q.Q8_0))
    out = np.empty((60_000, HIDDEN), np.float32)
    tracemalloc.start()
    weights.read_into("model.embed_tokens.weight", out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    weights.close()
    assert peak < out.nbytes // 2
    assert np.abs(out - tensors["token_embd.weight"]).max() < 0.05


def test_read_into_takes_views_of_a_fused_buffer(tmp_path: Path) -> None:
    weights = GGUFWeights(write_model(tmp_path / "m.gguf"))
    fused = np.zeros((2 * MLP, HIDDEN), np.float32)
    weights.read_into("model.layers.0.mlp.gate_proj.weight", fused[:MLP])
    weights.read_into("model.layers.0.mlp.up_proj.weight", fused[MLP:])
    np.testing.assert_array_equal(fused[:MLP], weights.get("model.layers.0.mlp.gate_proj.weight"))
    np.testing.assert_array_equal(fused[MLP:], weights.get("model.layers.0.mlp.up_proj.weight"))
    for bad in (fused, fused[:MLP].astype(np.float64), fused[: 2 * MLP : 2]):
        with pytest.raises(ValueError, match="out must be"):
            weights.read_into("model.layers.0.mlp.gate_proj.weight", bad)
    with pytest.raises(WeightFormatError, match="no tensor for"):
        weights.get("lm_head.weight")
    weights.close()


# --- against checkpoints that transformers wrote ----------------------------------------------------------------------


def permuted(weight: np.ndarray, num_heads: int) -> np.ndarray:
    return weight[reference_permutation(weight.shape[0], num_heads)]


def write_from_transformers(path: Path, model: transformers.PreTrainedModel, extra: dict[str, np.ndarray]) -> Path:
    """The checkpoint as llama.cpp's converter would write it, in F32."""
    config = model.config
    arch = {"mistral": "llama", "gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    gemma = arch == "gemma3"
    writer = GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_string(f"{arch}.rope.scaling.type", "linear")
        writer.add_float32(f"{arch}.rope.scaling.factor", rope["factor"])
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    tensors = dict(extra)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if gemma and "norm" in name:
            values = values + np.float32(1)
        if arch == "llama" and ".q_proj." in name:
            values = permuted(values, config.num_attention_heads)
        if arch == "llama" and ".k_proj." in name:
            values = permuted(values, config.num_key_value_heads)
        tensors[reference_name(name, gemma=gemma)] = values
    return write_gguf(path, writer, tensors)


def gemma_as_in_gguf() -> transformers.PretrainedConfig:
    """Gemma 3 with what a GGUF file implies: every sixth layer global, scale 1/sqrt(head_dim), local theta 10,000."""
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(7)]
    return tiny_models.gemma3(
        num_hidden_layers=7,
        layer_types=kinds,
        query_pre_attn_scalar=16,
        rope_parameters={**tiny_models.GEMMA_ROPE},
    )


def llama3_factors() -> dict[str, np.ndarray]:
    plain, _ = ROPE_INIT_FUNCTIONS["linear"](
        tiny_models.llama(rope_parameters={**tiny_models.LINEAR_ROPE, "factor": 1.0})
    )
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](tiny_models.llama(rope_parameters=tiny_models.LLAMA3_ROPE))
    return {"rope_freqs.weight": (plain / stretched).float().numpy()}


CHECKPOINTS: dict[str, tuple[Callable[[], transformers.PretrainedConfig], Callable[[], dict[str, np.ndarray]]]] = {
    "llama": (tiny_models.llama, dict),
    "llama-tied-mha": (tiny_models.VARIANTS["llama-tied-mha"], dict),
    "llama-biases": (tiny_models.VARIANTS["llama-biases"], dict),
    "llama-linear-rope": (tiny_models.VARIANTS["llama-linear-rope"], dict),
    "llama3-rope": (tiny_models.VARIANTS["llama3-rope"], llama3_factors),
    "mistral": (tiny_models.mistral, dict),
    "qwen2": (tiny_models.qwen2, dict),
    "qwen3": (tiny_models.qwen3, dict),
    "gemma3": (gemma_as_in_gguf, dict),
}


@pytest.fixture(params=CHECKPOINTS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[transformers.PreTrainedModel, Path]:
    make_config, make_extra = CHECKPOINTS[request.param]
    model = tiny_models.write(tmp_path / "hf", make_config())
    return model, write_from_transformers(tmp_path / "m.gguf", model, make_extra())


def test_names_layout_and_logits_are_transformers(checkpoint: tuple[transformers.PreTrainedModel, Path]) -> None:
    from octavo.models.load import load_model
    from support.ragged import Blocks, model_batch

    reference, path = checkpoint
    weights = GGUFWeights(path)
    state = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    if weights.config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert sorted(weights.names()) == sorted(state)
    offset = np.float32(1 if weights.config.post_norms else 0)
    for name, values in state.items():
        wanted = values + offset if "norm" in name else values
        np.testing.assert_array_equal(weights.get(name), wanted, err_msg=name)
    weights.close()

    model = load_model(path, torch.float32, torch.device("cpu"))
    tokens = torch.randint(0, 101, (37,), generator=torch.Generator().manual_seed(5)).tolist()
    with torch.no_grad():
        wanted_logits = reference(torch.tensor([tokens])).logits[0]
    batch = model_batch([Blocks(12, 4).row(tokens)], [37], 4)
    logits = model.forward(batch, model.new_caches(12, 4, torch.float32))
    torch.testing.assert_close(logits, wanted_logits, rtol=2e-4, atol=2e-4)


def test_unpermute_undoes_the_converters_interleaving() -> None:
    rng = np.random.default_rng(0)
    for num_heads, head_dim, columns in [(1, 2, 3), (6, 16, 5), (3, 8, 1)]:
        weight = rng.normal(size=(num_heads * head_dim, columns))
        np.testing.assert_array_equal(unpermute_rows(permuted(weight, num_heads), num_heads), weight)


# --- configs ----------------------------------------------------------------------------------------------------------


def model_writer(path: Path, arch: str = "llama", **changes: Any) -> GGUFWriter:
    """The small model's metadata; ``changes`` are called on the writer: ``add_context_length=5``."""
    writer = GGUFWriter(path, arch)
    add_llama_metadata(writer, arch)
    for method, value in changes.items():
        key = {"context": "context_length", "layers": "block_count", "heads": "attention.head_count"}[method]
        writer.kv_data[0].pop(f"{arch}.{key}")
        (writer.add_array if isinstance(value, list) else writer.add_uint32)(f"{arch}.{key}", value)
    return writer


def gemma_config(path: Path, num_layers: int, **extra: Any) -> TransformerConfig:
    writer = GGUFWriter(path, "gemma3")
    add_llama_metadata(writer, "gemma3", layers=num_layers)
    writer.add_sliding_window(64)
    for key, value in extra.items():
        add = {list: writer.add_array, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add("gemma3." + key.replace("__", "."), value)
    tensors = llama_tensors(num_layers)
    for layer in range(num_layers):
        vectors = {
            "attn_q_norm": HEAD_DIM,
            "attn_k_norm": HEAD_DIM,
            "post_attention_norm": HIDDEN,
            "post_ffw_norm": HIDDEN,
        }
        tensors |= {f"blk.{layer}.{name}.weight": np.ones(size, np.float32) for name, size in vectors.items()}
    return read_gguf_config(write_gguf(path, writer, tensors))


def test_gemma3_layers_and_scales(tmp_path: Path) -> None:
    config = gemma_config(tmp_path / "a.gguf", 13)
    assert config.windows == ((64,) * 5 + (0,)) * 2 + (64,)
    assert config.embedding_scale == HIDDEN**0.5 and config.hidden_act == "gelu_tanh"
    assert config.rope_local_theta == 10000.0 and config.scale == HEAD_DIM**-0.5
    assert config.post_norms and config.qk_norm and config.norm_weight_offset == 0.0
    config = gemma_config(tmp_path / "b.gguf", 3, attention__sliding_window_pattern=2, rope__freq_base_swa=500.0)
    assert config.windows == (64, 0, 64) and config.rope_local_theta == 500.0
    config = gemma_config(tmp_path / "c.gguf", 3, attention__sliding_window_pattern=[True, True, False])
    assert config.windows == (64, 64, 0)
    with pytest.raises(WeightFormatError, match="2 entries for 3 layers"):
        gemma_config(tmp_path / "d.gguf", 3, attention__sliding_window_pattern=[True, False])


def test_gemma3_27b_scales_queries_by_hidden_over_heads(tmp_path: Path) -> None:
    """62 layers mark the 27B model; here hidden / heads happens to be 64 / 4, so other heads are used."""
    config = gemma_config(tmp_path / "a.gguf", 62)
    assert config.scale == (HIDDEN / 4) ** -0.5


def test_rope_factors_become_frequencies(tmp_path: Path) -> None:
    factors = np.linspace(1, 8, HEAD_DIM // 2).astype(np.float32)
    path = tmp_path / "m.gguf"
    config = read_gguf_config(write_gguf(path, model_writer(path), llama_tensors() | {"rope_freqs.weight": factors}))
    assert config.rope_scaling is not None and config.rope_scaling.kind == "factors"
    plain = 10000.0 ** -(np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    np.testing.assert_allclose(inverse_frequencies(config, windowed=False), plain / factors, rtol=1e-12)


def test_head_counts_may_be_arrays_that_agree(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    assert read_gguf_config(write_gguf(path, model_writer(path, heads=[4, 4]), llama_tensors())).num_heads == 4
    with pytest.raises(UnsupportedModelError, match="differs between layers"):
        read_gguf_config(write_gguf(path, model_writer(path, heads=[4, 2]), llama_tensors()))


REFUSED: dict[str, tuple[Callable[[GGUFWriter, dict[str, np.ndarray]], Any], type[Exception], str]] = {
    "experts": (lambda w, t: w.add_expert_count(8), UnsupportedModelError, "expert_count = 8"),
    "yarn": (lambda w, t: w.add_string("llama.rope.scaling.type", "yarn"), UnsupportedModelError, "'yarn'"),
    "partial rotary": (lambda w, t: w.add_rope_dimension_count(8), UnsupportedModelError, "rope.dimension_count is 8"),
    "other value size": (lambda w, t: w.add_value_length(8), UnsupportedModelError, "value_length is 8"),
    "unknown tensor": (lambda w, t: t.update(x=np.ones(3, np.float32)), UnsupportedModelError, "a tensor 'x'"),
    "unexplained tensor": (
        lambda w, t: t.update({"blk.1.attn_v.bias": np.ones(32, np.float32)}),
        UnsupportedModelError,
        r"does not explain: 'blk\.1\.attn_v\.bias'",
    ),
    "missing tensor": (lambda w, t: t.pop("blk.1.ffn_up.weight"), WeightFormatError, "lacks 1 tensors"),
    "missing embeddings": (lambda w, t: t.pop("token_embd.weight"), WeightFormatError, "token_embd"),
    "wrong shape": (
        lambda w, t: t.update({"blk.0.attn_k.weight": np.ones((16, HIDDEN), np.float32)}),
        WeightFormatError,
        r"shape \(16, 64\), its metadata says \(32, 64\)",
    ),
    "wrong factors": (
        lambda w, t: t.update({"rope_freqs.weight": np.zeros(8, np.float32)}),
        WeightFormatError,
        "8 positive factors",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_the_answer_is_refused(tmp_path: Path, case: str) -> None:
    change, error, words = REFUSED[case]
    path, tensors = tmp_path / "m.gguf", llama_tensors()
    writer = model_writer(path)
    change(writer, tensors)
    write_gguf(path, writer, tensors)
    with pytest.raises(error, match=words):
        read_gguf_config(path)


def test_sizes_out_of_bounds_and_other_architectures(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for change, words in [({"context": 1 << 31}, "the limit is 16777216"), ({"layers": 0}, "expected a positive size")]:
        with pytest.raises(WeightFormatError, match=words):
            read_gguf_config(write_gguf(path, model_writer(path, **change), llama_tensors()))
    writer = GGUFWriter(path, "mamba")
    with pytest.raises(
        UnsupportedModelError, match="'mamba' is not supported; octavo runs llama, qwen2, qwen3, gemma3"
    ):
        read_gguf_config(write_gguf(path, writer, llama_tensors()))


def test_canonical_names() -> None:
    assert (
        canonical_name("blk.12.ffn_norm.weight", post_norms=False) == "model.layers.12.post_attention_layernorm.weight"
    )
    assert (
        canonical_name("blk.12.ffn_norm.weight", post_norms=True) == "model.layers.12.pre_feedforward_layernorm.weight"
    )
    assert canonical_name("blk.0.attn_q.bias", post_norms=False) == "model.layers.0.self_attn.q_proj.bias"
    for unknown in ("blk.x.attn_q.weight", "blk.0.attn_q.scale", "token_embd.bias", "v.patch_embd.weight", ""):
        assert canonical_name(unknown, post_norms=True) is None
