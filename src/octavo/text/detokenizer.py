"""Incremental detokenisation: joined, exactly what decoding all tokens at once gives; O(1) amortised per token."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from octavo.text.tokenizer import Tokenizer


class Detokenizer:
    """Turns token ids into text step by step. One per output sequence; not shared between threads.

    Because every token stands for fixed bytes (see ``octavo.text.codec``), an incremental UTF-8 decoder is all it takes:
    bytes that may still become a character are held back (at most three), and a sequence that turns out invalid becomes
    U+FFFD at the token that proves it, or in ``finish``. For every list of ids and every way to cut it,
    ``"".join(push(...)) + finish() == tokenizer.decode(ids)``; as a ``continuation`` of a prompt (the default) the
    leading space that SentencePiece tokenizers drop at the start of a document is kept, since it separates words here.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, continuation: bool = True) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        self._drop_space = tokenizer.strips_leading_space and not continuation
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens complete."""
        return "".join(self.push_one(token_id) for token_id in token_ids)

    def push_one(self, token_id: int) -> str:
        """The text that this token completes."""
        if token_id in self._skipped:
            return ""
        data = self._token_bytes(token_id)
        if self._drop_space and data:
            self._drop_space = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def finish(self) -> str:
        """What was held back: U+FFFD if the last character is incomplete, else nothing. Ready for a new sequence."""
        return self._utf8.decode(b"", final=True)
