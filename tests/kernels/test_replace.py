"""A transformers Llama with our operations says what it said before: logits, caches, padding, generated text."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, StaticCache

from octavo.errors import UnsupportedModelError
from octavo.kernels.replace import PARTS, replace_in, restore

SIZES = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 6}


def tiny(attention="sdpa", **changes):
    config = LlamaConfig(**SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 64} | changes)
    config._attn_implementation = attention
    model = LlamaForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    return model


def tokens(*shape):
    return torch.randint(1, 97, shape)


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "changes", [{}, {"attention_bias": True, "mlp_bias": True}, {"num_key_value_heads": 6, "head_dim": 10}]
)
@torch.no_grad()
def test_the_logits_are_the_same_and_restore_gives_the_same_bits(attention, changes):
    model, ids = tiny(attention, **changes), tokens(3, 11)
    before, state = model(ids).logits, {name: one.clone() for name, one in model.state_dict().items()}
    assert replace_in(model) is model
    close(model(ids).logits, before)
    assert all(torch.equal(one, state[name]) for name, one in model.state_dict().items())
    restore(model)
    assert torch.equal(model(ids).logits, before)
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("parts", [(part,) for part in PARTS])
@torch.no_grad()
def test_each_part_by_itself(parts):
    model, ids = tiny(), tokens(2, 7)
    before = model(ids).logits
    close(replace_in(model, parts)(ids).logits, before)
    with pytest.raises(ValueError, match=r"unknown \['linear'\]; known: attention"):
        replace_in(model, ["linear"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_padding_is_honoured(attention):
    """On either side, also where a row sees nothing but padding."""
    model, ids = tiny(attention), tokens(2, 9)
    for mask in (torch.ones(2, 9), torch.ones(2, 9)):
        mask = mask.long()
        mask[1, :4] = 0
        before = model(ids, attention_mask=mask).logits
        after = replace_in(model)(ids, attention_mask=mask).logits
        close(after[mask.bool()], before[mask.bool()])
        assert after.isfinite().all()
        restore(model)
        ids, mask = ids.flip(1), mask.flip(1)


@torch.no_grad()
def test_chunks_over_a_cache_give_the_logits_of_the_whole():
    model, ids = replace_in(tiny()), tokens(2, 12)
    whole = model(ids).logits
    cache, pieces = None, []
    for chunk in ids.split((5, 1, 4, 1, 1), 1):
        done = model(chunk, past_key_values=cache, use_cache=True)
        cache = done.past_key_values
        pieces.append(done.logits)
    close(torch.cat(pieces, 1), whole)


@pytest.mark.parametrize("cache", [None, "static"])
@torch.no_grad()
def test_generate_gives_the_same_text(cache):
    model, ids = tiny(), tokens(3, 6)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    kwargs = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "cache_implementation": cache}
    before = model.generate(ids, **kwargs)
    assert torch.equal(replace_in(model).generate(ids, **kwargs), before)


@torch.no_grad()
def test_a_static_cache_longer_than_the_text():
    model, ids = tiny(), tokens(2, 5)
    before = model(ids).logits
    cache = StaticCache(config=model.config, max_cache_len=16)
    close(replace_in(model)(ids, past_key_values=cache, use_cache=True).logits, before)


def test_gradients_are_the_original_ones():
    model, ids = tiny(), tokens(2, 5)
    gradients = []
    for change in (lambda one: one, replace_in):
        model.zero_grad()
        change(model)(ids, labels=ids).loss.backward()
        gradients.append({name: one.grad.clone() for name, one in model.named_parameters()})
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one, atol=1e-4, rtol=1e-3, msg=name)


@torch.no_grad()
def test_torch_compile_sees_one_graph():
    torch._dynamo.reset()
    model, ids = replace_in(tiny()), tokens(2, 8)
    before = model(ids, use_cache=False).logits
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    close(compiled(ids, use_cache=False).logits, before)


def test_what_is_not_a_plain_llama_is_refused_before_anything_is_changed():
    other = Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2))
    with pytest.raises(UnsupportedModelError, match="type 'qwen2'; only transformers' 'llama'"):
        replace_in(other)
    with pytest.raises(UnsupportedModelError, match="hidden_act = 'gelu' came"):
        replace_in(tiny(hidden_act="gelu"))
    with pytest.raises(UnsupportedModelError, match="attention 'flex_attention' came, one of sdpa, eager"):
        replace_in(tiny("flex_attention"))
    with pytest.raises(UnsupportedModelError, match="type 'Linear'"):
        replace_in(torch.nn.Linear(2, 2))
    model = tiny()
    model.model.layers[1].mlp.up_proj = torch.nn.Sequential(torch.nn.Linear(48, 80))
    with pytest.raises(UnsupportedModelError, match=r"model.layers.1.mlp.up_proj is a Sequential, a plain Linear"):
        replace_in(model)
    assert not any("forward" in module.__dict__ for module in model.modules())
