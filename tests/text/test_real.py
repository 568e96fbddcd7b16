"""The tokenizers inside the two embedded models' files, against independent constructions."""

from __future__ import annotations

import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from octavo.gguf.header import read_gguf_metadata
from octavo.models.registry import find_model
from octavo.text.detokenizer import Detokenizer
from octavo.text.tokenizer import load_tokenizer
from support.tokenizer_references import SAMPLES, SentencePieceReference

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]


def noise(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    characters = "".join(SAMPLES) + " \n\t0123456789" * 4
    return ["".join(rng.choices(characters, k=rng.randrange(1, 40))) for _ in range(count)]


def test_smollm2() -> None:
    """SmolLM2's published tokenizer: each digit alone, then GPT-2's rule, then byte-level BPE."""
    path = find_model("smollm2-135m-instruct").path
    metadata = read_gguf_metadata(path)
    tokens = metadata.texts("tokenizer.ggml.tokens")
    merges = [tuple(line.split(" ")) for line in metadata.texts("tokenizer.ggml.merges")]
    reference = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    reference.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    reference.decoder = decoders.ByteLevel()
    reference.add_special_tokens([AddedToken(token, special=True) for token in tokens[:17]])

    ours = load_tokenizer(path)
    for text in [*SAMPLES, *noise(0, 100), "<|im_start|>user\n12  34<|im_end|>", "long " * 1000]:
        ids = ours.encode(text)
        assert ids == reference.encode(text).ids, text
        for skip in (True, False):
            assert ours.decode(ids, skip) == reference.decode(ids, skip_special_tokens=skip)
    assert ours.encode("Hello 12  34") == [19556, 216, 33, 34, 256, 35, 36]
    assert (ours.vocab_size, ours.bos_token_id, ours.eos_token_ids) == (49152, 1, {0, 2})

    chat = ours.render_chat([{"role": "user", "content": "hi"}])
    assert chat.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert chat.endswith("<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert ours.encode_chat([{"role": "user", "content": "hi"}]).count(1) == 3


def test_gemma3() -> None:
    path = find_model("gemma3-270m").path
    metadata = read_gguf_metadata(path)
    reference = SentencePieceReference(
        metadata.texts("tokenizer.ggml.tokens"),
        metadata.numbers("tokenizer.ggml.token_type").tolist(),
        metadata.numbers("tokenizer.ggml.scores").tolist(),
    )
    ours = load_tokenizer(path)
    for text in [sample for sample in SAMPLES if "<bos>" not in sample] + noise(1, 100):
        ids = ours.encode(text)
        assert ids == [2, *reference.encode(text)], text
        assert ours.decode(ids) == text.replace("▁", " ")
    assert (ours.vocab_size, ours.bos_token_id, ours.eos_token_ids) == (262144, 2, {1, 106})
    rng = random.Random(3)
    for _ in range(50):
        ids = rng.choices(range(ours.vocab_size), k=30) + rng.choices(range(238, 494), k=10)
        rng.shuffle(ids)
        detokenizer = Detokenizer(ours)
        assert "".join(map(detokenizer.push_one, ids)) + detokenizer.finish() == ours.decode(ids)
