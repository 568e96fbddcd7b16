"""The architecture table: every spelling of config.json that is in use, and a clear refusal of what is not computed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from octavo.errors import ModelNotFoundError, UnsupportedModelError, WeightFormatError
from octavo.models.architectures import config_from_hf
from octavo.models.load import read_config
from octavo.models.rope import inverse_frequencies

LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
}
LLAMA3_SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
GEMMA = {
    "model_type": "gemma3_text",
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "sliding_window": 512,
}


def test_llama_3_in_both_spellings():
    old = config_from_hf({**LLAMA, "rope_scaling": {"rope_type": "llama3", **LLAMA3_SCALING}})
    new = {key: value for key, value in LLAMA.items() if key != "rope_theta"}
    new["rope_parameters"] = {"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3_SCALING}
    assert config_from_hf(new) == old
    assert (old.head_dim, old.rope_theta, old.windows, old.qkv_bias) == (128, 500000.0, (), False)
    assert old.num_parameters == 8_030_261_248  # Llama 3.1 8B

    frequencies, plain = inverse_frequencies(old, windowed=False), 500000.0 ** (-np.arange(64) / 64)
    np.testing.assert_allclose(frequencies[0], plain[0])  # a short wave: kept
    np.testing.assert_allclose(frequencies[-1], plain[-1] / 8)  # a long wave: stretched
    assert np.all(np.diff(frequencies) < 0)


def test_linear_scaling_of_old_configs():
    config = config_from_hf({**LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}})
    np.testing.assert_allclose(inverse_frequencies(config, windowed=False)[0], 0.25)


def test_defaults_that_transformers_leaves_out():
    minimal = {key: LLAMA[key] for key in LLAMA if key not in ("num_key_value_heads", "rope_theta", "rms_norm_eps")}
    config = config_from_hf(minimal)
    assert (config.num_kv_heads, config.rope_theta, config.rms_norm_eps) == (32, 10000.0, 1e-6)
    assert config_from_hf({**LLAMA, "model_type": "mistral"}).windows == (4096,) * 32
    assert config_from_hf({**LLAMA, "model_type": "mistral", "sliding_window": None}).windows == ()
    assert config_from_hf({**LLAMA, "model_type": "qwen3"}).head_dim == 128


def test_qwen2_windows_only_where_they_are_used():
    qwen = {**LLAMA, "model_type": "qwen2", "sliding_window": 4096, "max_window_layers": 30}
    assert config_from_hf({**qwen, "use_sliding_window": False}).windows == ()
    config = config_from_hf({**qwen, "use_sliding_window": True})
    assert config.windows == (0,) * 30 + (4096,) * 2
    assert config.qkv_bias and not config.attention_output_bias


def test_gemma3_in_both_spellings():
    old = config_from_hf({**GEMMA, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 4})
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    rope = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    new = config_from_hf({**GEMMA, "rope_parameters": rope, "layer_types": kinds * 2})
    assert new == old
    assert old.windows == (512, 512, 512, 0) * 2
    assert old.qk_norm and old.post_norms and old.tie_word_embeddings and old.norm_weight_offset == 1.0
    assert (old.scale, old.embedding_scale, old.hidden_act) == (1 / 16, 640**0.5, "gelu_tanh")
    assert inverse_frequencies(old, windowed=True)[1] == pytest.approx(1e4 ** (-2 / 256))
    assert inverse_frequencies(old, windowed=False)[1] == pytest.approx(1e6 ** (-2 / 256))
    assert config_from_hf(GEMMA).windows == (512,) * 5 + (0, 512, 512)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**LLAMA, "model_type": "mixtral"}, "mixtral.*supported: llama, mistral"),
        ({**LLAMA, "model_type": None}, "None"),
        ({"model_type": "gemma3", "text_config": GEMMA}, "gemma3.*multimodal.*text"),
        ({**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn.*default, linear, llama3"),
        ({**LLAMA, "rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({**LLAMA, "hidden_act": "relu2"}, "relu2.*silu"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({**GEMMA, "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({**GEMMA, "final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({**GEMMA, "use_bidirectional_attention": True}, "bidirectional"),
        ({**GEMMA, "layer_types": ["chunked_attention"] * 8}, "chunked_attention"),
    ],
)
def test_unsupported_features_are_named(config, said):
    with pytest.raises(UnsupportedModelError, match=said):
        config_from_hf(config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({key: value for key, value in LLAMA.items() if key != "hidden_size"}, "hidden_size"),
        ({**LLAMA, "hidden_size": "wide"}, "wide"),
        ({**LLAMA, "vocab_size": [1]}, "wrong type"),
        ({**LLAMA, "num_hidden_layers": 0}, "num_layers=0"),
        ({**LLAMA, "intermediate_size": 1 << 60}, "intermediate_size"),
        ({**LLAMA, "num_key_value_heads": 5}, "32 attention heads over 5"),
        ({**LLAMA, "head_dim": 33}, "odd head_dim"),
        ({**LLAMA, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({**GEMMA, "layer_types": ["full_attention"]}, "1 layer_types for 8"),
    ],
)
def test_contradictions_are_named(config, said):
    with pytest.raises(WeightFormatError, match=said):
        config_from_hf(config)


def test_read_config_reads_without_torch(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_config(tmp_path) == config_from_hf(LLAMA)
    code = f"""
import pathlib, sys
from octavo.models.load import read_config
read_config(pathlib.Path({str(tmp_path)!r}))
assert not sys.modules.keys() & {{'torch', 'safetensors.torch', 'transformers'}}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_read_config_of_nothing(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        read_config(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"neither a model folder nor a .gguf file"):
        read_config(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightFormatError, match="not JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(WeightFormatError, match="list"):
        read_config(tmp_path)
