"""Tokenizers built from GGUF metadata against the tokenizer that the vocabulary came from."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import gguf
from octavo.errors import ModelNotFoundError, UnsupportedModelError, WeightFormatError
from octavo.text.codec import byte_level_alphabet
from octavo.text.detokenizer import Detokenizer
from octavo.text.pre_tokenizers import build_pre_tokenizer, find_rule
from octavo.text.tokenizer import load_tokenizer
from support.tokenizer_references import CORPUS, SAMPLES, SentencePieceReference

# Verbatim from the tokenizer.json files of the families that GGUF's names stand for.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])


def gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


FAMILIES: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": gpt2,
    "smollm": smollm,
    "llama-bpe": lambda: split_by(LLAMA3),
    "qwen2": lambda: split_by(QWEN2),
    "tekken": lambda: split_by(TEKKEN),
}


def train_byte_level(family: str) -> Tokenizer:
    original = Tokenizer(models.BPE(ignore_merges=family in ("llama-bpe", "tekken")))
    original.pre_tokenizer = FAMILIES[family]()
    original.normalizer = normalizers.NFC() if family == "qwen2" else None
    original.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<bos>", "<eos>", "<pad>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    original.train_from_iterator(CORPUS * 3, trainer)
    original.add_tokens(["<tool>"])
    return original


def write_gguf(path: Path, fields: Mapping[str, Any]) -> Path:
    """A GGUF file with these ``tokenizer.*`` metadata and no tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in fields.items():
        if isinstance(value, bool):
            writer.add_bool(f"tokenizer.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"tokenizer.{key}", value)
        elif isinstance(value, str):
            writer.add_string(f"tokenizer.{key}", value)
        else:
            writer.add_array(f"tokenizer.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def byte_level_fields(original: Tokenizer, pre: str) -> dict[str, Any]:
    state = json.loads(original.to_str())
    vocab = sorted(original.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    special = {token["content"]: token["special"] for token in state["added_tokens"]}
    return {
        "ggml.model": "gpt2",
        "ggml.pre": pre,
        "ggml.tokens": [token for token, _ in vocab],
        "ggml.token_type": [{None: 1, True: 3, False: 4}[special.get(token)] for token, _ in vocab],
        "ggml.merges": [" ".join(pair) for pair in state["model"]["merges"]],
        "ggml.bos_token_id": 0,
        "ggml.eos_token_id": 1,
        "ggml.add_bos_token": False,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_byte_level_bpe_equals_the_original(family: str, tmp_path: Path) -> None:
    original = train_byte_level(family)
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", byte_level_fields(original, family)))
    rng = random.Random(family)
    characters = "".join(SAMPLES) + " \n\t1'"
    noise = ["".join(rng.choices(characters, k=rng.randrange(1, 60))) for _ in range(200)]
    for text in SAMPLES + noise:
        ids = built.encode(text)
        assert ids == original.encode(text).ids, text
        assert built.decode(ids, skip_special_tokens=False) == original.decode(ids, skip_special_tokens=False)
        if family != "qwen2":  # which composes characters first
            assert built.decode(ids, skip_special_tokens=False) == text
    assert built.vocab_size == original.get_vocab_size()
    assert built.eos_token_ids == {1, 3}  # <eos> by its key, <|im_end|> by its name


def test_random_ids_decode_incrementally_as_at_once(tmp_path: Path) -> None:
    original = train_byte_level("smollm")
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", byte_level_fields(original, "smollm")))
    rng = random.Random(1)
    for skip in (True, False):
        for _ in range(200):
            ids = rng.choices(range(built.vocab_size), k=rng.randrange(40))
            detokenizer = Detokenizer(built, skip_special_tokens=skip)
            joined = "".join(detokenizer.push_one(token) for token in ids) + detokenizer.finish()
            assert joined == built.decode(ids, skip) == original.decode(ids, skip_special_tokens=skip)


def test_bos_flag_and_default_of_the_rule(tmp_path: Path) -> None:
    fields = byte_level_fields(train_byte_level("llama-bpe"), "llama-bpe")
    del fields["ggml.add_bos_token"]
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", fields))
    plain = built.encode("hello", add_special_tokens=False)
    assert built.encode("hello") == [0, *plain]
    closed = load_tokenizer(write_gguf(tmp_path / "e.gguf", fields | {"ggml.add_eos_token": True}))
    assert closed.encode("hello") == [0, *plain, 1]


def sentencepiece_fields(**changes: Any) -> dict[str, Any]:
    """A vocabulary as SentencePiece's BPE trainer makes it: merged pieces by rank, then characters; no merges."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    vocab = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    merged = [token for token, _ in vocab if len(token) > 1]
    single = [token for token, _ in vocab if len(token) == 1]
    special = ["<unk>", "<bos>", "<eos>", "<end_of_turn>", "<tool>", "\n\n", "\n", "  ", "   ", "▁▁▁▁"]
    merged, single = ([token for token in tokens if token not in special] for tokens in (merged, single))
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)] + merged + single
    types = [2, 3, 3, 3, 4, 4, 4, 4, 4, 4] + [6] * 256 + [1] * (len(merged) + len(single))
    scores = [-1000.0] * 266 + [-float(rank) for rank in range(len(merged) + len(single))]
    return {
        "ggml.model": "llama",
        "ggml.tokens": tokens,
        "ggml.token_type": types,
        "ggml.scores": scores,
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
        "ggml.add_space_prefix": False,
    } | changes


def test_sentencepiece_equals_its_definition(tmp_path: Path) -> None:
    fields = sentencepiece_fields()
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", fields))
    reference = SentencePieceReference(*(fields[f"ggml.{name}"] for name in ("tokens", "token_type", "scores")))
    rng = random.Random(2)
    characters = "".join(CORPUS) + " \n" * 8
    noise = ["".join(rng.choices(characters, k=rng.randrange(1, 40))) for _ in range(150)]
    for text in [sample for sample in SAMPLES if "<bos>" not in sample] + noise:
        ids = built.encode(text, add_special_tokens=False)
        assert ids == reference.encode(text), text
        assert built.encode(text) == [1, *ids]
        assert built.decode([1, *ids]) == text
        assert built.decode(ids) == built._codec._backend.decode(ids)  # the library's own decoder agrees
    assert built.eos_token_ids == {2, 3}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20).filter(
        lambda text: "  " not in text
    )
)
def test_space_prefix_is_added_and_taken_away(text: str, tmp_path: Path) -> None:
    path = tmp_path / "prefix.gguf"
    if not path.exists():
        write_gguf(path, sentencepiece_fields(**{"ggml.add_space_prefix": True}))
    built = load_tokenizer(path)
    ids = built.encode(text, add_special_tokens=False)
    text = text.replace("▁", " ")  # one character to SentencePiece
    assert built.decode(ids) == text
    assert built.decode([1, *ids]) == text
    whole, continued = Detokenizer(built, continuation=False), Detokenizer(built)
    assert "".join(whole.push([token]) for token in ids) + whole.finish() == text
    assert continued.push(ids) + continued.finish() == (f" {text}" if text else "")


def test_a_user_defined_token_starts_a_new_prefix_like_a_control_token(tmp_path: Path) -> None:
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", sentencepiece_fields(**{"ggml.add_space_prefix": True})))

    def texts(text: str) -> list[str]:
        return [
            built.token_bytes(token).decode(errors="replace") for token in built.encode(text, add_special_tokens=False)
        ]

    assert texts("the<tool>the") == [" the", "<tool>", " the"]
    assert texts("the<eos>the") == [" the", "<eos>", " the"]
    assert texts("the\n\nthe") == [" the", "\n\n", " the"]


def test_bytes_of_a_broken_character_are_held_back(tmp_path: Path) -> None:
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", sentencepiece_fields()))
    ids = built.encode("ᚠ", add_special_tokens=False)
    assert [built.token_bytes(token) for token in ids] == [b"\xe1", b"\x9a", b"\xa0"]
    detokenizer = Detokenizer(built)
    assert [detokenizer.push_one(token) for token in ids] == ["", "", "ᚠ"]
    assert detokenizer.push(ids[:2]) + detokenizer.finish() == "\ufffd"


def test_odd_vocabularies_load(tmp_path: Path) -> None:
    """Empty, repeated and absurdly long pieces, and no token types at all."""
    fields = sentencepiece_fields()
    odd = ["", "the", "the", "a" * 100_000]
    for name, extra in (("tokens", odd), ("token_type", [1] * 4), ("scores", [-9000.0] * 4)):
        fields[f"ggml.{name}"] = fields[f"ggml.{name}"] + extra
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", fields))
    assert built.vocab_size == len(fields["ggml.tokens"])
    assert built.decode(built.encode("the cat " + "a" * 500)) == "the cat " + "a" * 500
    assert built.decode(range(built.vocab_size)).endswith("the" + "a" * 100_000)
    del fields["ggml.token_type"]
    untyped = load_tokenizer(write_gguf(tmp_path / "u.gguf", fields))
    assert untyped.decode(untyped.encode("the cat", add_special_tokens=False)) == "the cat"


def test_user_text_cannot_name_a_byte_token(tmp_path: Path) -> None:
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", sentencepiece_fields()))
    assert built.decode(built.encode("<0x41>")) == "<0x41>"
    assert 10 + 0x41 not in built.encode("<0x41>")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"ggml.pre": "martian"}, UnsupportedModelError, "'martian'.*known: .*llama-bpe.*smollm"),
        ({"ggml.pre": None}, UnsupportedModelError, "does not name its pre-tokenizer"),
        ({"ggml.model": "bert"}, UnsupportedModelError, "'bert' is not supported"),
        ({"ggml.model": None}, UnsupportedModelError, "carries no tokenizer"),
        ({"ggml.tokens": None}, WeightFormatError, "tokens is missing"),
        ({"ggml.token_type": [1, 3]}, WeightFormatError, "2 token types"),
        ({"ggml.eos_token_id": 10**6}, WeightFormatError, "eos_token_id is 1000000"),
        ({"ggml.merges": ["a"]}, WeightFormatError, "not two pieces"),
        ({"ggml.merges": ["zz qq"]}, WeightFormatError, "do not fit together"),
        ({"chat_template": "{% if %}"}, UnsupportedModelError, "chat template 'default', line 1"),
    ],
)
def test_bad_metadata_is_named(changes: dict[str, Any], error: type[Exception], words: str, tmp_path: Path) -> None:
    fields = byte_level_fields(train_byte_level("gpt-2"), "gpt-2") | changes
    path = write_gguf(tmp_path / "m.gguf", {key: value for key, value in fields.items() if value is not None})
    with pytest.raises(error, match=words):
        load_tokenizer(path)


def test_scores_must_match_and_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightFormatError, match="3 scores"):
        load_tokenizer(write_gguf(tmp_path / "m.gguf", sentencepiece_fields(**{"ggml.scores": [0.0, 1.0, 2.0]})))
    with pytest.raises(ModelNotFoundError, match="neither a folder nor"):
        load_tokenizer(tmp_path / "nowhere.gguf")
    (tmp_path / "junk.gguf").write_bytes(b"junk" * 100)
    with pytest.raises(WeightFormatError):
        load_tokenizer(tmp_path / "junk.gguf")


def test_chat_templates_by_name(tmp_path: Path) -> None:
    fields = sentencepiece_fields() | {
        "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "chat_templates": ["tool_use"],
        "chat_template.tool_use": "{{ tools|length }} tools",
    }
    built = load_tokenizer(write_gguf(tmp_path / "m.gguf", fields))
    messages = [{"role": "user", "content": "hello"}]
    assert built.render_chat(messages) == "<bos>hello"
    assert built.encode_chat(messages) == built.encode("hello")  # one BOS, not two
    assert built.render_chat(messages, tools=[{"type": "function"}]) == "1 tools"
    assert built.supports_tools


def test_the_byte_alphabet_is_the_librarys() -> None:
    alphabet = byte_level_alphabet()
    assert sorted(alphabet) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(alphabet.values()) == list(range(256))
    assert alphabet["Ġ"] == 0x20
    assert alphabet["Ċ"] == 0x0A


def test_the_default_rule_cuts_punctuation_then_words_then_digits_in_threes() -> None:
    cuts = build_pre_tokenizer(find_rule("default", "m")).pre_tokenize_str("it's (12345)!  x")
    assert [word for word, _ in cuts] == ["it", "'", "s", "Ġ", "(", "123", "45", ")!", "Ġ", "Ġx"]
