"""The two real models of the model registry against transformers, with the hyperparameters their authors published.

The reference gets every tensor through the gguf library's arithmetic and a second, separate name table; transformers' own
GGUF loader agrees with it, but needs a minute for one of these files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from octavo.gguf.header import read_gguf_header
from octavo.models.dequantize import dequantize_into
from octavo.models.gguf import read_gguf_config
from octavo.models.load import load_model
from octavo.models.registry import find_model
from support.gguf_files import reference_name, reference_permutation
from support.ragged import Blocks, model_batch

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SMOLLM2 = transformers.LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    tie_word_embeddings=True,
)
GEMMA3 = transformers.Gemma3TextConfig(
    vocab_size=262144,
    hidden_size=640,
    intermediate_size=2048,
    num_hidden_layers=18,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=256,
    max_position_embeddings=32768,
    query_pre_attn_scalar=256,
    sliding_window=512,
    layer_types=["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(18)],
    tie_word_embeddings=True,
)


def reference_model(path: Path, config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    """A transformers model filled from the file by the test's own means."""
    gemma = config.model_type == "gemma3_text"
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    infos = read_gguf_header(path).tensors
    data = np.memmap(path, np.uint8, "r")
    state = {}
    for name in model.state_dict():
        if name == "lm_head.weight":
            continue
        info = infos[reference_name(name, gemma=gemma)]
        values = np.empty(info.shape, np.float32)
        dequantize_into(info, lambda start, size, at=info.offset: data[at + start : at + start + size], values)
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads and not gemma:
            values = values[np.argsort(reference_permutation(values.shape[0], heads))]
        state[name] = torch.from_numpy(values - np.float32(1) if gemma and "norm" in name else values)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its buffers are not in the file
    if gemma:
        model.model.embed_tokens.embed_scale = torch.tensor(math.sqrt(config.hidden_size))
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    return model.eval()


@pytest.mark.parametrize(("name", "published"), [("smollm2-135m-instruct", SMOLLM2), ("gemma3-270m", GEMMA3)])
def test_a_real_model_gives_transformers_logits(name: str, published: transformers.PretrainedConfig) -> None:
    resolved = find_model(name)
    config = read_gguf_config(resolved.path)
    assert config.architecture == resolved.entry.architecture
    assert config.num_parameters == {"smollm2-135m-instruct": 134_515_008, "gemma3-270m": 268_098_176}[name]
    tokens = torch.randint(0, config.vocab_size, (48,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        wanted = reference_model(resolved.path, published)(torch.tensor([tokens])).logits[0]

    model = load_model(resolved.path, torch.float32, torch.device("cpu"))
    caches = model.new_caches(4, 16, torch.float32)
    row = Blocks(4, 16).row(tokens)
    logits = torch.cat([model.forward(model_batch([row], [count], 16), caches) for count in (30, 1, 16, 1)])
    error = (logits - wanted).abs().max()
    assert error < 2e-3 * wanted.std()
    top = wanted.topk(2).values
    decided = top[:, 0] - top[:, 1] > 2 * error
    assert decided.sum() > 40
    assert (logits.argmax(-1) == wanted.argmax(-1))[decided].all()
