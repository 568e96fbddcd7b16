"""Token ids to bytes and text to ids: the codec protocol, and its implementation over the `tokenizers` library.

Decoding is defined token by token: every id stands for fixed bytes, and the text of a sequence is the UTF-8 reading of
their concatenation. That is what byte-level BPE and SentencePiece with byte fallback mean, it makes incremental decoding
exact and O(1) per token, and it equals the library's ``decode`` wherever the bytes are valid UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import Any, Protocol

from tokenizers import Tokenizer as Backend

from octavo.errors import InvalidRequestError, UnsupportedModelError

SPACE_MARK = "▁"  # SentencePiece writes a space as U+2581
_LONG_TEXT_CHARS = 2048  # about a millisecond; the library keeps the lock in encode, but not in encode_batch_fast
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TextCodec(Protocol):
    """Text to ids, and one id to its bytes."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that ``skip_special_tokens`` leaves out of text."""
        ...

    @property
    def strips_leading_space(self) -> bool:
        """Encoding puts a space before the text (SentencePiece's dummy prefix), so decoding takes one away."""
        ...

    def encode(self, text: str, add_special_tokens: bool) -> list[int]: ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token; empty for an id that the tokenizer does not know (padding of the model's vocabulary)."""
        ...


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes: character -> byte (Radford et al. 2019, byte-level BPE)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(hidden)}


def token_text(token: bytes) -> str:
    """A token as text; one that is no UTF-8 by itself as OpenAI writes it: ``bytes:\\xe2\\x80``."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def check_unicode(text: str) -> None:
    """Raises ``InvalidRequestError`` for text that has no UTF-8 form (JSON lets unpaired surrogates through)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"text is not valid Unicode: unpaired surrogate {text[error.start]!r} at character {error.start}; "
            "send the character itself or leave it out"
        ) from None


class BackendCodec:
    """A ``tokenizers.Tokenizer`` whose decoder is byte-level, or SentencePiece-style with or without byte fallback."""

    def __init__(self, backend: Backend, *, origin: str, vocab_size: int | None = None) -> None:
        """``vocab_size`` spares the search for the highest id.

        Raises ``UnsupportedModelError`` for a decoder whose text is not a concatenation of token bytes.
        """
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        decoder = _read_decoder(backend, origin)
        self._alphabet = byte_level_alphabet() if decoder.byte_level else None
        self._byte_fallback = decoder.byte_fallback
        self.strips_leading_space = decoder.strips_leading_space
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.vocab_size = vocab_size or max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._bytes: list[bytes | None] = [None] * self.vocab_size

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Ids of ``text``; from ``_LONG_TEXT_CHARS`` on without holding the interpreter lock, so that others go on."""
        try:
            if len(text) < _LONG_TEXT_CHARS:
                encoding = self._backend.encode(text, add_special_tokens=add_special_tokens)
            else:
                encoding = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0]
        except TypeError:
            check_unicode(text)
            raise
        ids: list[int] = encoding.ids
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.vocab_size:
            return b""
        known = self._bytes[token_id]
        if known is None:
            known = self._bytes[token_id] = self._compute_bytes(token_id)
        return known

    def token_id(self, text: str) -> int | None:
        """The id of a token by its text in the vocabulary, None if it is not there."""
        found: int | None = self._backend.token_to_id(text)
        return found

    def _compute_bytes(self, token_id: int) -> bytes:
        token: str | None = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if self._alphabet is not None:
            try:
                return bytes(self._alphabet[char] for char in token)
            except KeyError:  # an added token, written as plain text
                return token.encode()
        if self._byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return token.replace(SPACE_MARK, " ").encode()


class _DecoderKind:
    """What a serialised decoder does, reduced to three facts."""

    def __init__(self) -> None:
        self.byte_level = False
        self.byte_fallback = False
        self.strips_leading_space = False


def _read_decoder(backend: Backend, origin: str) -> _DecoderKind:
    state = json.loads(backend.decoder.__getstate__()) if backend.decoder is not None else None
    kind = _DecoderKind()
    for step in _flatten(state):
        match step.get("type"):
            case "ByteLevel":
                kind.byte_level = True
            case "ByteFallback":
                kind.byte_fallback = True
            case "Strip" if step.get("content") == " " and step.get("start") == 1 and not step.get("stop"):
                kind.strips_leading_space = True
            case "Metaspace" if step.get("replacement") == SPACE_MARK:
                kind.strips_leading_space = step.get("prepend_scheme", "always") != "never"
            case "Replace" if step.get("pattern") == {"String": SPACE_MARK} and step.get("content") == " ":
                pass
            case "Fuse":
                pass
            case other:
                raise UnsupportedModelError(
                    f"{origin}: decoder step {other!r} ({step}) is not supported; known: ByteLevel, ByteFallback, Fuse, "
                    "Metaspace, Replace of '▁' by a space, Strip of one leading space"
                )
    return kind


def _flatten(state: dict[str, Any] | None) -> list[dict[str, Any]]:
    if state is None:
        return [{"type": None}]
    if state.get("type") == "Sequence":
        return [step for inner in state.get("decoders", []) for step in _flatten(inner)]
    return [state]
