"""Pre-tokenizer rules of byte-level BPE vocabularies, by their GGUF names.

The rules are those of the models' own tokenizer.json files: a vocabulary gives right ids only with the rule that it was
trained with, so an unknown name is an error, not a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

from octavo.errors import UnsupportedModelError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Digits cut alone, then GPT-2's rule on what lies between, in one pass: so all blanks before a digit stay together.
_SMOLLM = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA3 = rf"{_WORDS}|\p{{N}}{{1,3}}|{_TAIL}"  # digits in groups of three
_QWEN2 = rf"{_WORDS}|\p{{N}}|{_TAIL}"  # each digit alone
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (  # words also break where lower case turns into upper case
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreTokenizerRule:
    """``patterns`` cut one after the other: each cuts what the one before left whole, matches and gaps alike."""

    patterns: tuple[str, ...]
    nfc: bool = False  # compose characters first
    ignore_merges: bool = False  # a word that is a token is that token, whatever the merges say
    adds_bos: bool = False  # if the file does not say


_RULES = {
    "gpt-2": PreTokenizerRule((_GPT2,)),
    "smollm": PreTokenizerRule((_SMOLLM,)),
    "llama-bpe": PreTokenizerRule((_LLAMA3,), ignore_merges=True, adds_bos=True),
    "qwen2": PreTokenizerRule((_QWEN2,), nfc=True),
    "tekken": PreTokenizerRule((_TEKKEN,), ignore_merges=True, adds_bos=True),
    "default": PreTokenizerRule((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}
_ALIASES = {"gpt2": "gpt-2", "llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}


def find_rule(name: str, origin: str) -> PreTokenizerRule:
    """Raises ``UnsupportedModelError`` that lists the known names."""
    rule = _RULES.get(_ALIASES.get(name, name))
    if rule is None:
        known = ", ".join(sorted([*_RULES, *_ALIASES]))
        raise UnsupportedModelError(
            f"{origin}: pre-tokenizer {name!r} is not supported (known: {known}). "
            "The model's original folder with its tokenizer.json can be served instead"
        )
    return rule


def build_pre_tokenizer(rule: PreTokenizerRule) -> pre_tokenizers.PreTokenizer:
    """The rule as a pre-tokenizer of the `tokenizers` library."""
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.patterns]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def build_normalizer(rule: PreTokenizerRule) -> normalizers.Normalizer | None:
    """The rule's normaliser of the `tokenizers` library, None if it has none."""
    return normalizers.NFC() if rule.nfc else None
