"""Tokenizers of Hugging Face model folders against transformers', which the package never imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from octavo.errors import InvalidRequestError, ModelNotFoundError, UnsupportedModelError, WeightFormatError
from octavo.text.detokenizer import Detokenizer
from octavo.text.tokenizer import load_tokenizer

TEXTS = [
    "the cat sat on the mat, the cat sat",
    "  two spaces, a\ttab and\n\n breaks ",
    "Übermut, Привет, 日本語 🤗👩‍👧 \u200b\x00",
    "<s>the</s> cat <turn>sat",
    "<né> a b<\uff5cend▁of text\uff5c> é",
    "the cat sat\n on  the mat 🤗 " * 120,  # long texts take another path
    "",
]
CORPUS = [*TEXTS[:3], "that hat then them mat sat rat"] * 3
SPECIAL = ["<unk>", "<s>", "</s>", "<|eot_id|>"]


def sentencepiece_like() -> Tokenizer:
    """Shaped like Llama 2's and Mistral's: prefix, byte fallback, BOS by the post-processor."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    specials = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=specials[:4], show_progress=False)
    tokenizer.train_from_iterator([*CORPUS[:1], *CORPUS[3:4]], trainer)
    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    vocab |= {token: len(vocab) + index for index, token in enumerate(specials[4:])}
    tokenizer = Tokenizer.from_str(json.dumps(state))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_tokens([AddedToken("<turn>", normalized=False)])
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<\uff5cend▁of text\uff5c>"])
    tokenizer.add_tokens([AddedToken("<né>", normalized=False), AddedToken("a b", normalized=False)])
    tokenizer.enable_truncation(4)  # as some published files have it; serving must not cut prompts
    tokenizer.enable_padding(length=64, pad_token="<unk>")
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


KINDS = {"sentencepiece": sentencepiece_like, "byte-level": byte_level, "unigram": unigram}


def save(folder: Path, tokenizer: Tokenizer, **settings: Any) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "__type": "AddedToken"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config | settings))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = load_tokenizer(save(tmp_path, KINDS[kind]()))
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for text in TEXTS:
        for add in (True, False):
            ids = ours.encode(text, add_special_tokens=add)
            assert ids == reference.encode(text, add_special_tokens=add), (text, add)
            for skip in (True, False):
                expected = reference.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
                assert ours.decode(ids, skip_special_tokens=skip) == expected
                detokenizer = Detokenizer(ours, skip_special_tokens=skip, continuation=False)
                assert "".join(map(detokenizer.push_one, ids)) + detokenizer.finish() == expected
    assert ours.vocab_size == len(reference)
    assert (ours.bos_token_id, ours.eos_token_ids) == (1, {2, 3})  # </s> by the config, <|eot_id|> by its name
    assert ours.special_ids >= {0, 1, 2, 3}


@pytest.mark.parametrize("length", [3, 5000])
def test_an_unpaired_surrogate_is_named(length: int, tmp_path: Path) -> None:
    ours = load_tokenizer(save(tmp_path, byte_level()))
    with pytest.raises(InvalidRequestError, match=f"unpaired surrogate .* at character {length}"):
        ours.encode("a" * length + "\ud83d")


def test_end_ids_come_from_every_file(tmp_path: Path) -> None:
    save(tmp_path, byte_level())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 17]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 18, "torch_dtype": "float32"}')
    assert load_tokenizer(tmp_path).eos_token_ids == {2, 3, 17, 18}


def test_special_tokens_map_stands_in_for_the_config(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}')
    ours = load_tokenizer(tmp_path)
    assert (ours.bos_token_id, ours.eos_token_ids) == (1, {2, 3})


MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("settings", "files", "expected"),
    [
        ({"chat_template": "one {{ bos_token }}"}, {}, "one <s>"),
        ({"chat_template": [{"name": "default", "template": "two"}]}, {}, "two"),
        ({"chat_template": "one"}, {"chat_template.jinja": "three {{ eos_token }}"}, "three </s>"),
        ({}, {"chat_template.json": '{"chat_template": "four"}'}, "four"),
    ],
)
def test_where_the_chat_template_comes_from(
    settings: dict[str, Any], files: dict[str, str], expected: str, tmp_path: Path
) -> None:
    save(tmp_path, byte_level(), **settings)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert load_tokenizer(tmp_path).render_chat(MESSAGES) == expected


def test_without_a_chat_template_the_answer_says_what_to_do(tmp_path: Path) -> None:
    ours = load_tokenizer(save(tmp_path, byte_level()), name="tiny-base")
    assert not ours.has_chat_template
    with pytest.raises(InvalidRequestError, match=r"'tiny-base' has no chat template.*/v1/completions"):
        ours.encode_chat(MESSAGES)


def test_a_folder_without_tokenizer_json_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(UnsupportedModelError, match="save_pretrained"):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelNotFoundError):
        load_tokenizer(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tokenizer.json", "{", "not a tokenizer"),
        ("tokenizer.json", '{"model": {"type": "Nonsense"}}', "not a tokenizer"),
        ("tokenizer_config.json", "{,}", "is not JSON"),
        ("tokenizer_config.json", "[1]", "expected a JSON object"),
        ("tokenizer_config.json", '{"chat_template": 5}', "chat_template is int"),
        ("tokenizer_config.json", '{"chat_template": [{"name": 1}]}', "needs a name"),
        ("generation_config.json", "\udcff", "is not UTF-8"),
    ],
)
def test_broken_files_are_named(name: str, text: str, words: str, tmp_path: Path) -> None:
    save(tmp_path, byte_level())
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightFormatError, match=words):
        load_tokenizer(tmp_path)


def test_a_decoder_that_is_no_concatenation_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(UnsupportedModelError, match="WordPiece"):
        load_tokenizer(save(tmp_path, tokenizer))


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    save(tmp_path, byte_level(), chat_template="hello")
    code = (
        "import sys, pathlib; from octavo.text.tokenizer import load_tokenizer; import octavo.text.stream\n"
        "load_tokenizer(pathlib.Path(sys.argv[1])).render_chat([{'role': 'user', 'content': 'x'}])\n"
        "print(sorted({'torch', 'transformers', 'gguf'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
