"""Texts that tokenizers get wrong, and SentencePiece's BPE written down as its definition, slowly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

CORPUS = [
    "The quick brown fox jumps over the lazy dog; it's 12:34, we're late, I'LL go! 3.14159 and 2024-11-05.",
    "def add(a, b):\n    return a + b\n\n\nclass HTTPServer:\n\tpass\n\n        # eight spaces\r\n",
    "Größe, naïve café, mañana, Übermut; Привет, мир! Γειά Ελλάδα; Việt Nam đẹp; İstanbul",
    "日本語のテキストと漢字。中文也在这里。한국어 문장입니다. नमस्ते दुनिया। สวัสดีชาวโลก مرحبا بالعالم שלום",
    "emoji 🤗🔥👩‍👩‍👧‍👦🇩🇪 and maths ∑∫√≠ ½ Ⅷ ٣٤ e\u0301 combining",
    "camelCase XMLHttpRequest SCREAMING_SNAKE path/to/file.txt https://example.org/a?b=c&d=%20",
    "the the the then there these 111 1111 11111 000000 aaaaaaaa ==== ---- ....",
]
SAMPLES = [
    *CORPUS,
    "",
    " ",
    "   leading and trailing   ",
    "a  12  b   345   \n\n\n  6",
    "tabs\t\t\tand\nbreaks\r\n\r\nx \n y",
    "control \x00\x01\x07\x1b\x7f\u0085\u00a0\u2003\u3000\ufeff end",
    "unseen: ᚠᛇᚻ 𐍈𐎀 \U0010ffff \ufffd",
    "marks ▁▁ and Ġ Ċ and <0x41> <bos> <pad> <tool>",
]


class SentencePieceReference:
    """User-defined pieces first and frozen, then the best adjacent pair until none is left, bytes for what remains."""

    def __init__(self, tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> None:
        self.ids = {token: token_id for token_id, token in enumerate(tokens)}
        self.score = {token: scores[token_id] for token, token_id in self.ids.items() if types[token_id] == 1}
        frozen = {token.replace(" ", "▁"): token_id for token, token_id in self.ids.items() if types[token_id] == 4}
        self.frozen = frozen
        self.longest = max(map(len, frozen), default=0)

    def encode(self, text: str) -> list[int]:
        text = text.replace(" ", "▁")
        out: list[int] = []
        start = plain = 0
        while start < len(text):
            user = self._user_defined(text, start)
            if not user:
                start += 1
                continue
            out += [*self._merge(text[plain:start]), self.frozen[user]]
            start = plain = start + len(user)
        return out + self._merge(text[plain:])

    def _user_defined(self, text: str, start: int) -> str:
        sizes = range(self.longest, 0, -1)
        return next((text[start : start + n] for n in sizes if text[start : start + n] in self.frozen), "")

    def _merge(self, text: str) -> list[int]:
        pieces = list(text)
        while True:
            pairs = enumerate(itertools.pairwise(pieces))
            joined = [(self.score[a + b], -at) for at, (a, b) in pairs if a + b in self.score]
            if not joined:
                break
            at = -max(joined)[1]
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        known = [[self.ids[piece]] if piece in self.score else self._bytes(piece) for piece in pieces]
        return [token_id for ids in known for token_id in ids]

    def _bytes(self, piece: str) -> list[int]:
        return [self.ids[f"<0x{byte:02X}>"] for byte in piece.encode()]
