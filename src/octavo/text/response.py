"""Response deltas from engine events: text, token texts, log-probabilities as text, finish and stop reason.

The one place where stop tokens, stop strings and finish reasons are applied, for the server and for the library. A parser of
tool calls or of reasoning takes these deltas and gives its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec

from octavo.errors import RequestFailedError
from octavo.text.codec import token_text
from octavo.text.stream import TextStream
from octavo.text.tokenizer import Tokenizer
from octavo.types import FinishReason, RequestTimings, Submission, TokenEvent, TokenLogprobs


class DecodedToken(msgspec.Struct, frozen=True, array_like=True):
    """A token of the vocabulary and its log-probability. ``data`` may be only a part of a character."""

    data: bytes
    logprob: float

    @property
    def text(self) -> str:
        """A token that is no UTF-8 by itself is written as OpenAI does: ``bytes:\\xe2\\x80``."""
        return token_text(self.data)


class DecodedLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """The sampled token of one position and the most likely ones, most likely first."""

    token: DecodedToken
    top: tuple[DecodedToken, ...]


class ResponseDelta(msgspec.Struct, frozen=True, array_like=True):
    """What one event adds to a response. The last one has a ``finish_reason``.

    ``token_texts`` has one entry per token id: what the token added to the text before any cut, so that their running
    length is ``text_offset`` of the completions API; a stop token that is not shown adds nothing.
    """

    text: str
    token_texts: tuple[str, ...] = ()
    logprobs: tuple[DecodedLogprobs, ...] | None = None  # one per token id, if asked for
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None  # the stop token id or the stop string that ended it; None for end-of-sequence
    timings: RequestTimings | None = None  # with the finish reason


class ResponseDecoder:
    """Decodes the events of one request in order; not shared between threads.

    A stop string ends the response before the engine knows: then the delta has a finish reason and the event has none, and
    the caller aborts the request.
    """

    def __init__(self, tokenizer: Tokenizer, submission: Submission) -> None:
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer, submission.params)
        self._arrival_s = submission.arrival_s
        self._first_s: float | None = None
        self._first_timings: RequestTimings | None = None
        self.num_tokens = 0
        self.num_cached_tokens = 0  # prompt tokens from the prefix cache, as far as known

    def decode(self, event: TokenEvent) -> ResponseDelta:
        """The event as text. Raises ``RequestFailedError`` if the engine failed or aborted the request."""
        finish, token_ids = event.finish_reason, event.token_ids
        if finish is FinishReason.ERROR:
            raise RequestFailedError(event.error or "the engine failed this request")
        if finish is FinishReason.ABORT:
            raise RequestFailedError("the engine aborted this request")
        self.num_tokens += len(token_ids)
        if event.num_cached_tokens:
            self.num_cached_tokens = event.num_cached_tokens
        if self._first_s is None and token_ids:
            self._first_s, self._first_timings = event.time_s, event.timings
        logprobs = None if event.logprobs is None else self._decode_logprobs(event.logprobs)
        stream = self._stream
        pushed = stream.push(token_ids, ends_with_stop_token=finish is FinishReason.STOP)
        text, texts = pushed.text, pushed.token_texts
        if finish is None and pushed.stopped_by is None:
            return ResponseDelta(text, texts, logprobs)
        text += stream.finish()  # what was held back may itself complete a stop string
        if stream.stopped_by is None:
            return ResponseDelta(text, texts, logprobs, finish, event.stop_reason, event.timings)
        timings = event.timings if finish is not None else self._timings(event.time_s)
        return ResponseDelta(text, texts, logprobs, FinishReason.STOP, stream.stopped_by, timings)

    def _timings(self, now_s: float) -> RequestTimings:
        """Of a response that a stop string ended: the engine has not spoken of its end."""
        first_s, early = self._first_s, self._first_timings or RequestTimings()
        tpot_s = None
        if first_s is not None and self.num_tokens > 1:
            tpot_s = (now_s - first_s) / (self.num_tokens - 1)
        return RequestTimings(
            queue_s=early.queue_s,
            ttft_s=None if first_s is None else first_s - self._arrival_s,
            tpot_s=tpot_s,
            e2e_s=now_s - self._arrival_s,
            num_preemptions=early.num_preemptions,
        )

    def _decode_logprobs(self, entries: Sequence[TokenLogprobs]) -> tuple[DecodedLogprobs, ...]:
        token_bytes = self._tokenizer.token_bytes
        return tuple(
            DecodedLogprobs(
                DecodedToken(token_bytes(entry.token_id), entry.logprob),
                tuple(DecodedToken(token_bytes(token_id), logprob) for token_id, logprob in entry.top),
            )
            for entry in entries
        )


def joined(deltas: Sequence[ResponseDelta]) -> ResponseDelta:
    """One response from all of its deltas, in order."""
    last = deltas[-1]
    logprobs = tuple(chain.from_iterable([delta.logprobs for delta in deltas if delta.logprobs]))
    return ResponseDelta(
        text="".join([delta.text for delta in deltas]),
        token_texts=tuple(chain.from_iterable([delta.token_texts for delta in deltas])),
        logprobs=logprobs or None,
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        timings=last.timings,
    )
