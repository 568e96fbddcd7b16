"""Prompts: random token ids, or plain words, as tokens, text or messages.

A *piece* is a list of whole numbers, and nothing else knows which: token ids within the vocabulary bounds, or places in the
word list. Pieces are drawn, concatenated and at last rendered; so shared prefixes work the same way in every form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from octavo.bench.lengths import Lengths
from octavo.bench.words import WORDS
from octavo.errors import ConfigError

FORMS = ("auto", "tokens", "text", "messages")


class PromptOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How prompts look and where they are cut."""

    form: str = (
        "auto"  # tokens (exact lengths), text (/v1/completions), messages (/v1/chat/completions); auto: the workload's
    )
    vocab_low: int = (
        100  # random token ids lie in [vocab_low, vocab_high): past the special ones, within any vocabulary
    )
    vocab_high: int = 30_000
    tokens_per_word: float = 1.0  # of the word list, under the server's tokenizer; see ``calibrate``
    max_prompt_tokens: int | None = None  # longer ones are cut at the end, so a shared prefix stays
    max_output_tokens: int | None = None
    repeat: int = (
        0  # fresh tokens for a repeated run, same lengths and times: no prefix cache knows them from the run before
    )

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f"prompt form {self.form!r}: expected one of {', '.join(FORMS)}", param="form")
        if not 0 <= self.vocab_low < self.vocab_high:
            raise ConfigError(
                f"token ids from {self.vocab_low} up to {self.vocab_high}: expected 0 <= low < high", param="vocab_high"
            )
        if not 0.1 <= self.tokens_per_word <= 100:
            raise ConfigError(
                f"tokens_per_word = {self.tokens_per_word:g}: expected 0.1 to 100", param="tokens_per_word"
            )
        for name in ("max_prompt_tokens", "max_output_tokens"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ConfigError(f"{name} = {limit}: expected at least 1", param=name)


def calibrate(count_tokens: Callable[[str], int], seed: int = 0, num_words: int = 4000) -> float:
    """Tokens per word of the word list under the tokenizer behind ``count_tokens``."""
    rng = np.random.default_rng(seed)
    return count_tokens(as_text(rng.integers(0, len(WORDS), num_words).tolist())) / num_words


def as_text(piece: list[int]) -> str:
    return " ".join([WORDS[place] for place in piece])


@dataclass
class Tally:
    """What was cut, for the plan's notes."""

    num_prompts: int = 0
    prompts_cut: int = 0
    outputs_cut: int = 0
    tokens: int = 0
    remarks: list[str] = field(default_factory=list)

    def notes(self, options: PromptOptions) -> list[str]:
        lines = list(dict.fromkeys(self.remarks))
        if self.prompts_cut:
            lines.append(
                f"{self.prompts_cut} of {self.num_prompts} prompts were cut to {options.max_prompt_tokens} tokens"
            )
        if self.outputs_cut:
            lines.append(
                f"{self.outputs_cut} of {self.num_prompts} outputs were cut to {options.max_output_tokens} tokens"
            )
        return lines


class Draw:
    """The random streams of one plan, one for each part, so that a change to one part leaves the others as they were.

    ``SeedSequence.spawn`` gives independent streams; blocks get one each, named by their hash.
    """

    def __init__(self, seed: int, options: PromptOptions, form: str) -> None:
        self.options = options
        self.form = options.form if options.form != "auto" else form
        self.tally = Tally()
        lengths, choices, pauses = np.random.SeedSequence(seed).spawn(4)[1:]  # the first is the arrivals'
        content = np.random.SeedSequence([seed, options.repeat]).spawn(1)[0]
        self._lengths = np.random.default_rng(lengths)
        self._content = np.random.default_rng(content)
        self.choices = np.random.default_rng(choices)
        self.pauses = np.random.default_rng(pauses)
        self._block_entropy = [seed, options.repeat]

    def prompt_tokens(self, lengths: Lengths) -> int:
        return self.cut_prompt(lengths.draw(self._lengths))

    def output_tokens(self, lengths: Lengths) -> int:
        return self.cut_output(lengths.draw(self._lengths))

    def count(self, lengths: Lengths) -> int:
        """A number that is not a length of a prompt or an output, e.g. of turns."""
        return lengths.draw(self._lengths)

    def cut_prompt(self, num_tokens: int) -> int:
        self.tally.num_prompts += 1
        limit = self.options.max_prompt_tokens
        if limit is None or num_tokens <= limit:
            return num_tokens
        self.tally.prompts_cut += 1
        return limit

    def cut_output(self, num_tokens: int) -> int:
        limit = self.options.max_output_tokens
        if limit is None or num_tokens <= limit:
            return num_tokens
        self.tally.outputs_cut += 1
        return limit

    def piece(self, num_tokens: int) -> list[int]:
        """Fresh random content of ``num_tokens`` tokens (as words: about as many)."""
        return self._random(num_tokens, self._content)

    def block(self, hash_id: int, num_tokens: int) -> list[int]:
        """The content of a hashed block: the same hash gives the same tokens, wherever and whenever it occurs."""
        sequence = np.random.SeedSequence(self._block_entropy, spawn_key=(1, hash_id))
        return self._random(num_tokens, np.random.default_rng(sequence))

    def units(self, num_tokens: int) -> int:
        """Numbers in a piece of ``num_tokens``: as many ids, or words by the calibration."""
        return num_tokens if self.form == "tokens" else max(1, round(num_tokens / self.options.tokens_per_word))

    def _random(self, num_tokens: int, rng: np.random.Generator) -> list[int]:
        low, high = (self.options.vocab_low, self.options.vocab_high) if self.form == "tokens" else (0, len(WORDS))
        piece: list[int] = rng.integers(low, high, self.units(num_tokens)).tolist()
        return piece

    def render(self, piece: list[int], system: list[int] | None = None) -> dict[str, Any]:
        """The prompt's field of a ``BenchRequest``; ``system`` comes first, as its own message where there are messages."""
        self.tally.tokens += len(piece) + len(system or ())
        if self.form == "messages":
            messages = [{"role": "system", "content": as_text(system)}] if system else []
            return {"messages": [*messages, {"role": "user", "content": as_text(piece)}]}
        whole = [*system, *piece] if system else piece
        return {"token_ids": whole} if self.form == "tokens" else {"text": as_text(whole)}
