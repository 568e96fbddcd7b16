"""The tokenizer that a GGUF file carries in its metadata (keys ``tokenizer.*``), built for the `tokenizers` library.

Two kinds exist among the models that Octavo runs: ``gpt2``, byte-level BPE with merges in the file, and ``llama``,
SentencePiece BPE with scores. The second is the same algorithm: merge the best pair first, where the score of the joined
piece decides (Kudo & Richardson 2018). So its merges are every cut of a piece into two pieces, in the order of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as Backend

from octavo.errors import UnsupportedModelError, WeightFormatError
from octavo.gguf.header import read_gguf_metadata
from octavo.gguf.metadata import GGUFMetadata
from octavo.text.chat_template import ChatTemplate
from octavo.text.codec import SPACE_MARK, BackendCodec
from octavo.text.parts import TURN_END_TOKENS, TokenizerParts
from octavo.text.pre_tokenizers import build_normalizer, build_pre_tokenizer, find_rule

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_PREFIX = "tokenizer.ggml."
_NO_TOKEN = 0xFFFFFFFF
_MAX_PIECE_CHARS = 256  # longer ones get no merges (SentencePiece trains up to 16): a hostile file costs no time


@dataclass(frozen=True)
class _Vocabulary:
    tokens: list[str]
    types: list[int]

    def ids_of_type(self, *types: int) -> list[int]:
        return [token_id for token_id, kind in enumerate(self.types) if kind in types]


def read_gguf(path: Path, name: str) -> TokenizerParts:
    """Raises ``WeightFormatError`` for metadata that contradicts itself, ``UnsupportedModelError`` for other kinds."""
    metadata = read_gguf_metadata(path)
    kind = metadata.text(_PREFIX + "model")
    if kind is None:
        raise UnsupportedModelError(f"{path} carries no tokenizer (no {_PREFIX}model); use a file of the whole model")
    vocabulary = _read_vocabulary(metadata, path)
    if kind == "gpt2":
        backend, adds_bos = _byte_level(metadata, vocabulary, name)
    elif kind == "llama":
        backend, adds_bos = _sentencepiece(metadata, vocabulary, path), True
    else:
        raise UnsupportedModelError(f"{name}: GGUF tokenizer {kind!r} is not supported (known: gpt2, llama)")
    prefixed = kind == "llama" and metadata.flag(_PREFIX + "add_space_prefix", True)
    _add_special_tokens(backend, vocabulary, in_normalised_text=kind == "llama" and not prefixed)
    bos, eos = (_token_id(metadata, key, vocabulary) for key in ("bos_token_id", "eos_token_id"))
    begin = (bos,) if bos is not None and metadata.flag(_PREFIX + "add_bos_token", adds_bos) else ()
    end = (eos,) if eos is not None and metadata.flag(_PREFIX + "add_eos_token", False) else ()
    return TokenizerParts(
        codec=BackendCodec(backend, origin=name, vocab_size=len(vocabulary.tokens)),
        origin=name,
        bos_token_id=bos,
        eos_token_ids=_end_ids(metadata, vocabulary, eos),
        added_ends=(begin, end),
        chat_template=_read_template(metadata, vocabulary, name),
    )


def _read_vocabulary(metadata: GGUFMetadata, path: Path) -> _Vocabulary:
    tokens = metadata.texts(_PREFIX + "tokens")
    if not tokens:
        raise WeightFormatError(f"{path}: {_PREFIX}tokens is missing or empty")
    types = [int(kind) for kind in metadata.numbers(_PREFIX + "token_type")] or [_NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise WeightFormatError(f"{path}: {len(tokens)} tokens but {len(types)} token types")
    return _Vocabulary(tokens, types)


def _byte_level(metadata: GGUFMetadata, vocabulary: _Vocabulary, name: str) -> tuple[Backend, bool]:
    pre = metadata.text(_PREFIX + "pre")
    if pre is None:
        raise UnsupportedModelError(
            f"{name}: the file does not name its pre-tokenizer ({_PREFIX}pre), as files from before May 2024; "
            "take a newer conversion, since guessing gives wrong tokens"
        )
    rule = find_rule(pre, name)
    merges: list[tuple[str, str]] = []
    for line in metadata.texts(_PREFIX + "merges"):
        left, space, right = line.partition(" ")
        if not (left and space and right):
            raise WeightFormatError(f"{name}: merge {line!r} is not two pieces with a space between")
        merges.append((left, right))
    backend = Backend(_build_bpe(vocabulary, merges, name, ignore_merges=rule.ignore_merges))
    backend.normalizer = build_normalizer(rule)
    backend.pre_tokenizer = build_pre_tokenizer(rule)
    backend.decoder = decoders.ByteLevel()
    return backend, rule.adds_bos


def _sentencepiece(metadata: GGUFMetadata, vocabulary: _Vocabulary, path: Path) -> Backend:
    scores = metadata.numbers(_PREFIX + "scores")
    if len(scores) != len(vocabulary.tokens):
        raise WeightFormatError(f"{path}: {len(vocabulary.tokens)} tokens but {len(scores)} scores")
    unknown = _token_id(metadata, "unknown_token_id", vocabulary)
    backend = Backend(
        _build_bpe(
            vocabulary,
            _merges_from_scores(vocabulary, scores),
            str(path),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = metadata.flag(_PREFIX + "add_space_prefix", True)
    marks_spaces = normalizers.Replace(" ", SPACE_MARK)
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend(SPACE_MARK), marks_spaces]) if prefix else marks_spaces
    )
    steps = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _merges_from_scores(vocabulary: _Vocabulary, scores: np.ndarray) -> list[tuple[str, str]]:
    """Every cut of a normal piece into two normal pieces: best score first, then the longer left part.

    Only normal pieces take part: SentencePiece never merges into or out of control, byte and user-defined ones.
    Scores that are equal keep the order of ids.
    """
    tokens = vocabulary.tokens
    normal = np.array(vocabulary.ids_of_type(_NORMAL), dtype=np.int64)
    pieces = {tokens[token_id] for token_id in normal}
    merges: list[tuple[str, str]] = []
    add = merges.append
    for token_id in normal[np.argsort(-scores[normal], kind="stable")].tolist():
        piece = tokens[token_id]
        for cut in range(len(piece) - 1, 0, -1) if len(piece) <= _MAX_PIECE_CHARS else ():
            left = piece[:cut]
            if left in pieces:
                right = piece[cut:]
                if right in pieces:
                    add((left, right))
    return merges


def _build_bpe(vocabulary: _Vocabulary, merges: list[tuple[str, str]], name: str, **options: object) -> models.BPE:
    vocab = {token: token_id for token_id, token in enumerate(vocabulary.tokens)}
    try:
        return models.BPE(vocab=vocab, merges=merges, **options)
    except Exception as error:  # the library raises plain Exception, e.g. for a merge of unknown pieces
        raise WeightFormatError(f"{name}: the vocabulary and its merges do not fit together: {error}") from None


def _add_special_tokens(backend: Backend, vocabulary: _Vocabulary, *, in_normalised_text: bool) -> None:
    """Control tokens are recognised in text and hidden in output; user-defined ones are recognised and shown.

    The longest match wins, before any merge. ``in_normalised_text``: user-defined ones are sought when spaces are
    already marks and no prefix is added again after them, which is SentencePiece's rule; the library then normalises the
    tokens themselves too, so this cannot be where normalising adds a prefix. There the text after any such token gets a
    prefix, as in llama.cpp.
    """
    control = [vocabulary.tokens[token_id] for token_id in vocabulary.ids_of_type(_CONTROL, _UNKNOWN)]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control if token])
    user = [vocabulary.tokens[token_id] for token_id in vocabulary.ids_of_type(_USER_DEFINED)]
    backend.add_tokens([AddedToken(token, special=False, normalized=in_normalised_text) for token in user if token])


def _token_id(metadata: GGUFMetadata, key: str, vocabulary: _Vocabulary) -> int | None:
    found = metadata.integer(_PREFIX + key)
    if found is None or found in (_NO_TOKEN, -1):
        return None
    if not 0 <= found < len(vocabulary.tokens):
        raise WeightFormatError(f"{_PREFIX}{key} is {found}; the vocabulary has {len(vocabulary.tokens)} tokens")
    return found


def _end_ids(metadata: GGUFMetadata, vocabulary: _Vocabulary, eos: int | None) -> frozenset[int]:
    """End of sequence, of turn and of message, by key or by name."""
    found = {eos, *(_token_id(metadata, key, vocabulary) for key in ("eot_token_id", "eom_token_id"))}
    control = {vocabulary.tokens[token_id]: token_id for token_id in vocabulary.ids_of_type(_CONTROL)}
    found |= {control.get(token) for token in TURN_END_TOKENS}
    return frozenset(token_id for token_id in found if token_id is not None)


def _read_template(metadata: GGUFMetadata, vocabulary: _Vocabulary, name: str) -> ChatTemplate | None:
    sources: dict[str, str] = {}
    for label in ["default", *_names(metadata)]:
        key = "tokenizer.chat_template" if label == "default" else f"tokenizer.chat_template.{label}"
        text = metadata.text(key)
        if text:
            sources[label] = text
    if not sources:
        return None
    keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    found = {token: _token_id(metadata, f"{key}_token_id", vocabulary) for token, key in keys.items()}
    specials = {token: vocabulary.tokens[token_id] for token, token_id in found.items() if token_id is not None}
    return ChatTemplate(sources, special_tokens=specials, origin=name)


def _names(metadata: GGUFMetadata) -> Sequence[str]:
    return [label for label in metadata.texts("tokenizer.chat_templates") if label != "default"]
