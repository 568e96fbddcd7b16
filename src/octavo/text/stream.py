"""Stop strings in streamed text: tokens detokenised, cut at the first stop string, as little held back as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from octavo.text.detokenizer import Detokenizer
from octavo.text.tokenizer import Tokenizer
from octavo.types import SamplingParams


class TextDelta(NamedTuple):
    """What a push made ready.

    ``text`` can be sent; ``stopped_by`` is the stop string that ended the output (then nothing follows). ``token_texts``
    has one entry per pushed token: the text that it completed, before any cut. Their running length is ``text_offset``
    of the completions API.
    """

    text: str
    stopped_by: str | None = None
    token_texts: tuple[str, ...] = ()


class TextStream:
    """``push`` token ids as they come, ``finish`` when the engine says the request has ended.

    A stop string is found wherever it falls, also across tokens and pushes; the one that ends first wins, among those
    the longest. The text of the first ``min_tokens`` tokens is never searched. Text is held back only while it is the
    beginning of some stop string. Joined texts of any way to cut the same ids are equal, up to the end. The caller
    aborts the request once ``stopped_by`` is set; later pushes give "".
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, *, continuation: bool = True) -> None:
        self._detokenizer = Detokenizer(
            tokenizer, skip_special_tokens=params.skip_special_tokens, continuation=continuation
        )
        self._stops = tuple(stop for stop in params.stop if stop)
        self._include_stop = params.include_stop_str_in_output
        self._held = ""
        self._num_unstoppable = params.min_tokens  # tokens to come in which no stop string counts
        self.stopped_by: str | None = None

    def push(self, token_ids: Sequence[int], *, ends_with_stop_token: bool = False) -> TextDelta:
        """``ends_with_stop_token``: the last id ended the request (end-of-sequence or one of ``stop_token_ids``).

        Its text, if it has any, is then left out unless ``include_stop_str_in_output``, as for a stop string.
        """
        if self.stopped_by is not None:
            return TextDelta("", self.stopped_by)
        push_one = self._detokenizer.push_one
        if ends_with_stop_token and not self._include_stop and token_ids:
            texts = (*map(push_one, token_ids[:-1]), "")
        else:
            texts = tuple(map(push_one, token_ids))
        if not self._stops:
            return TextDelta("".join(texts), None, texts)
        free = min(self._num_unstoppable, len(texts))
        self._num_unstoppable -= free
        return TextDelta("".join(texts[:free]) + self._release("".join(texts[free:])), self.stopped_by, texts)

    def finish(self) -> str:
        """Text held back that no stop string claimed. May itself complete a stop string: see ``stopped_by`` after it."""
        if self.stopped_by is not None:
            return ""
        ready = self._release(self._detokenizer.finish())
        held, self._held = self._held, ""
        return ready + held if self.stopped_by is None else ready

    def _release(self, new: str) -> str:
        """Take in ``new``; return what can no longer be part of a stop string. Sets ``stopped_by``."""
        text = self._held + new
        found = _first_stop(text, self._stops)
        if found is not None:
            start, stop = found
            self.stopped_by, self._held = stop, ""
            return text[: start + len(stop)] if self._include_stop else text[:start]
        keep = _longest_stop_beginning(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _first_stop(text: str, stops: tuple[str, ...]) -> tuple[int, str] | None:
    """(start, stop) of the stop string whose end comes first; the longest of those that end there.

    By the end, since that is what is known first when text arrives character by character: so the result does not
    depend on how the text was cut into pushes.
    """
    matches = [(start + len(stop), start, stop) for stop in stops if (start := text.find(stop)) >= 0]
    if not matches:
        return None
    _, start, stop = min(matches)
    return start, stop


def _longest_stop_beginning(text: str, stops: tuple[str, ...]) -> int:
    """Length of the longest suffix of ``text`` that is a proper prefix of some stop string."""
    longest = 0
    for stop in stops:
        start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
        while 0 <= start < len(text) - longest:
            if stop.startswith(text[start:]):
                longest = len(text) - start
                break
            start = text.find(stop[0], start + 1)
    return longest
