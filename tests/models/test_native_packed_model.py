"""Whole models packed for the native kernels, against the weights that the torch path reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Q

from gguf import GGUFWriter
from octavo.config import DEFAULT_MODEL
from octavo.errors import WeightFormatError
from octavo.kernels.native.matrix import PackedMatrix
from octavo.kernels.native.structs import Format
from octavo.models.load import open_weights
from octavo.models.pack import pack_model
from octavo.models.packed import PackedModel
from octavo.models.registry import find_model, is_fetched, model_registry
from octavo.models.weights import WeightSource
from support import tiny_models
from support.gguf_files import add_llama_metadata, llama_tensors, write_gguf, write_model
from support.native_library import needs_native
from support.native_reference import unpack

pytestmark = needs_native


def matrices(model: PackedModel) -> Iterator[tuple[str, PackedMatrix]]:
    yield "model.embed_tokens.weight", model.embedding
    if not model.config.tie_word_embeddings:
        yield "lm_head.weight", model.head
    for index, layer in enumerate(model.layers):
        for name in "qkvo":
            yield f"model.layers.{index}.self_attn.{name}_proj.weight", getattr(layer, name)
        for name in ("gate", "up", "down"):
            yield f"model.layers.{index}.mlp.{name}_proj.weight", getattr(layer, name)


def assert_same_weights(model: PackedModel, source: WeightSource, tolerance: float = 2e-7) -> None:
    """Within a rounding of what dequantising gives, relative to a matrix' largest weight."""
    for name, matrix in matrices(model):
        expected = source.get(name)
        got = unpack(matrix).weights(*expected.shape)
        assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max(), name
        bias = name.removesuffix("weight") + "bias"
        assert matrix.spec.has_bias == (bias in source.names())
        if matrix.spec.has_bias:
            values = matrix.parts.bias.view(np.float32)
            np.testing.assert_array_equal(values[: matrix.spec.n], source.get(bias))
            assert not values[matrix.spec.n :].any()


def assert_same_vectors(model: PackedModel, source: WeightSource) -> None:
    np.testing.assert_array_equal(model.norm, source.get("model.norm.weight"))
    post = model.config.post_norms
    for index, layer in enumerate(model.layers):
        expected = {
            "input_layernorm": layer.input_norm,
            "post_attention_layernorm": layer.post_attention_norm if post else layer.mlp_norm,
            "pre_feedforward_layernorm": layer.mlp_norm if post else None,
            "post_feedforward_layernorm": layer.post_mlp_norm,
            "self_attn.q_norm": layer.q_norm,
            "self_attn.k_norm": layer.k_norm,
        }
        for name, vector in expected.items():
            full = f"model.layers.{index}.{name}.weight"
            assert (vector is not None) == (full in source.names()), full
            if vector is not None:
                np.testing.assert_array_equal(vector, source.get(full))


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1])
def test_gguf_models(tmp_path: Path, kind: Q) -> None:
    """llama: the rows of q and k come out in Hugging Face's order."""
    with closing(open_weights(write_model(tmp_path / "m.gguf", kind))) as source:
        model = pack_model(source)
        assert_same_weights(model, source)
        assert_same_vectors(model, source)
        assert model.head is model.embedding


@pytest.mark.parametrize("variant", tiny_models.VARIANTS)
def test_safetensors_folders(tmp_path: Path, variant: str) -> None:
    """Every architecture: biases, qk-norms, post-norms, untied heads; sizes that are no multiple of a tile."""
    tiny_models.write(tmp_path, tiny_models.VARIANTS[variant]())
    with closing(open_weights(tmp_path)) as source:
        model = pack_model(source)
        assert_same_weights(model, source, tolerance=0)
        assert_same_vectors(model, source)
        assert model.inv_freq.shape == (source.config.head_dim // 2,)


@pytest.mark.parametrize(("weights", "tolerance"), [("int8", 0.006), ("int4", 0.08)])
def test_floats_are_quantised_on_request(tmp_path: Path, weights: str, tolerance: float) -> None:
    tiny_models.write(tmp_path, tiny_models.VARIANTS["llama-biases"]())
    with closing(open_weights(tmp_path)) as source:
        model = pack_model(source, weights)
        assert_same_weights(model, source, tolerance)
        assert model.embedding.spec.format == model.head.spec.format == Format.Q8
        assert {m.spec.format for layer in model.layers for m in (layer.q, layer.down)} == {
            Format.Q8 if weights == "int8" else Format.U4
        }


def test_what_a_file_holds_quantised_stays(tmp_path: Path) -> None:
    with closing(open_weights(write_model(tmp_path / "m.gguf", Q.Q5_1))) as source:
        assert_same_weights(pack_model(source, "int4"), source)


def test_a_scale_beyond_halves_is_packed_with_float_scales(tmp_path: Path) -> None:
    tensors = llama_tensors()
    tensors["blk.1.ffn_up.weight"][3, :5] = 70000 * 8
    path = write_gguf(tmp_path / "m.gguf", _writer(tmp_path), tensors, Q.BF16)
    with closing(open_weights(path)) as source:
        assert_same_weights(pack_model(source, "int8"), source, 0.006)


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with closing(open_weights(write_model(tmp_path / "m.gguf"))) as source, pytest.raises(ValueError, match="int7"):
        pack_model(source, "int7")


def test_a_bad_tensor_is_named(tmp_path: Path) -> None:
    tensors = llama_tensors()
    tensors["blk.0.ffn_up.weight"][3, 5] = np.inf
    with (
        closing(open_weights(write_gguf(tmp_path / "m.gguf", _writer(tmp_path), tensors))) as source,
        pytest.raises(WeightFormatError, match=r"model\.layers\.0\.mlp\.up_proj\.weight: .* not finite"),
    ):
        pack_model(source)


@pytest.mark.real_model
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "gemma3-270m"])
def test_real_models(name: str) -> None:
    """A few matrices of each, whole; Gemma's file mixes Q5_0, Q4_K, Q6_K and Q8_0."""
    entry = model_registry().find(name)
    assert entry is not None
    if name != DEFAULT_MODEL and not is_fetched(entry):
        pytest.skip(f"{name} is not in the cache")
    with closing(open_weights(find_model(name).path)) as source:
        model = pack_model(source)
        assert_same_vectors(model, source)
        some = [pair for index, pair in enumerate(matrices(model)) if index % 5 == 1]
        assert {matrix.spec.format for _, matrix in some} <= {Format.U4, Format.U8, Format.Q8}
        for full_name, matrix in some:
            expected = source.get(full_name)
            assert np.abs(unpack(matrix).weights(*expected.shape) - expected).max() <= 2e-7 * np.abs(expected).max()


def _writer(folder: Path) -> GGUFWriter:
    writer = GGUFWriter(folder / "m.gguf", "llama")
    add_llama_metadata(writer)
    return writer
