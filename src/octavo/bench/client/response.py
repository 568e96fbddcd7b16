"""The streamed response to one request, parsed into a ``RequestRecord`` with as little work per chunk as can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from octavo.bench.client.sse import MalformedStreamError, SseParser
from octavo.bench.client.target import Prompt
from octavo.bench.types import BenchRequest, Outcome, RequestRecord

DONE = b"[DONE]"
MAX_ERROR_BYTES = 64 << 10
MAX_ERROR_CHARS = 500


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    """The fields that are read of one event; decoding skips all others."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: dict[str, Any] | None = None
    error: Any = None
    object: str | None = None
    message: str | None = None


_decode: Callable[[bytes], _Chunk] = msgspec.json.Decoder(_Chunk).decode


class Receiver(Protocol):
    """Who a connection delivers to. ``ended`` becomes true when nothing more is expected; late calls are ignored."""

    ended: bool

    def postponed(self, now_s: float) -> None:
        """It could not be sent before now: too few connections are allowed."""
        ...

    def head(self, status: int, content_type: str) -> None: ...

    def body(self, data: bytes, now_s: float) -> None: ...

    def completed(self, now_s: float) -> None:
        """The HTTP message is whole."""
        ...

    def lost(self, reason: str, now_s: float) -> None:
        """It never will be."""
        ...


class Response:
    """One request in flight. Times given to it are those of the record: seconds since the run's start."""

    __slots__ = ("_counts_usage", "_page", "_sse", "_tokens", "_usage", "ended", "prompt", "record", "request", "texts")

    def __init__(self, request: BenchRequest, prompt: Prompt, intended_s: float, *, keep_text: bool) -> None:
        self.request = request
        self.prompt = prompt
        self.record = RequestRecord(
            index=request.index,
            intended_s=intended_s,
            sent_s=intended_s,
            tenant=request.tenant,
            service_class=request.service_class,
            slo=request.slo,
        )
        self.texts: list[str] | None = [] if keep_text else None  # only where a next turn needs it
        self.ended = False
        self._sse = SseParser()
        self._page: bytes | None = None  # the body of what is no event stream
        self._usage: _Usage | None = None
        self._counts_usage = False  # each chunk says how many tokens there are so far
        self._tokens = 0

    def postponed(self, now_s: float) -> None:
        self.record.sent_s = now_s

    def head(self, status: int, content_type: str) -> None:
        self.record.status = status
        if status != 200 or not content_type.startswith("text/event-stream"):
            self._page = b""
            if status == 200:
                self._page = b"content type " + (content_type or "missing").encode() + b", expected text/event-stream: "

    def body(self, data: bytes, now_s: float) -> None:
        if self.ended:
            return
        if self._page is not None:
            self._page += data[: MAX_ERROR_BYTES - len(self._page)]
            return
        try:
            for event in self._sse.feed(data):
                self._event(event, now_s)
                if self.ended:
                    return
        except MalformedStreamError as error:
            self.end(Outcome.FAILED, f"malformed stream: {error.message}", now_s)

    def _event(self, data: bytes, now_s: float) -> None:
        if data == DONE:
            self._end_well(now_s)
            return
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.end(Outcome.FAILED, f"malformed event: {error}: {data[:80]!r}", now_s)
            return
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.choices:
            for choice in chunk.choices:
                self._choice(choice, chunk.usage, now_s)
        elif chunk.error is not None or chunk.object == "error":
            self.end(Outcome.FAILED, f"error event: {_message(chunk.error or chunk.message)}", now_s)
            return
        if chunk.timings is not None:
            self.record.server_timings = {
                name: value for name, value in chunk.timings.items() if value is None or isinstance(value, int | float)
            }

    def _choice(self, choice: _Choice, usage: _Usage | None, now_s: float) -> None:
        record = self.record
        if choice.finish_reason is not None:
            record.finish_reason = choice.finish_reason
        text = choice.text
        delta = choice.delta
        if delta is not None:
            text = delta.content
            if self.texts is not None and text:
                self.texts.append(text)
            text = text or delta.reasoning_content or delta.reasoning or delta.tool_calls
        elif self.texts is not None and text:
            self.texts.append(text)
        if not text:
            return
        tokens = 1
        so_far = None if usage is None else usage.completion_tokens
        if record.first_token_s is None:
            record.first_token_s = now_s
            self._counts_usage = so_far is not None and choice.finish_reason is None
        if self._counts_usage and so_far is not None:
            tokens = so_far - self._tokens
            self._tokens = so_far
        record.chunk_s.append(now_s)
        record.chunk_tokens.append(tokens)

    def completed(self, now_s: float) -> None:
        if self.ended:
            return
        if self._page is not None:
            self.end(Outcome.FAILED, f"{self.record.status}: {_explain(self._page)}", now_s)
        elif self.record.finish_reason is None:
            where = "inside an event" if self._sse.unfinished else "without a finish reason or [DONE]"
            self.end(Outcome.FAILED, f"the stream ended {where} ({self._so_far()})", now_s)
        else:
            self._end_well(now_s)  # a server that sends no [DONE]

    def lost(self, reason: str, now_s: float) -> None:
        self.end(Outcome.FAILED, f"{reason} ({self._so_far()})", now_s)

    def _so_far(self) -> str:
        if self.record.status is None:
            return "before any response"
        return f"after {len(self.record.chunk_s)} chunks"

    def _end_well(self, now_s: float) -> None:
        """Also the place where tokens are counted: by the server, or by us, and then the record says so."""
        record, usage = self.record, self._usage
        if usage is not None:
            record.prompt_tokens = usage.prompt_tokens
            record.output_tokens = usage.completion_tokens
            if usage.prompt_tokens_details is not None:
                record.cached_tokens = usage.prompt_tokens_details.cached_tokens
        if record.output_tokens is None:
            record.output_tokens = len(record.chunk_s)
            record.tokens_are_chunks = True
        if not record.output_tokens:
            self.end(Outcome.FAILED, "a response without a token", now_s)
        else:
            self.end(Outcome.OK, None, now_s)

    def end(self, outcome: Outcome, error: str | None, now_s: float) -> None:
        """The one terminal event; what comes later is ignored."""
        if self.ended:
            return
        self.ended = True
        record = self.record
        record.outcome, record.error = outcome, error if error is None else error[:MAX_ERROR_CHARS]
        record.end_s = now_s

    @property
    def text(self) -> str:
        return "".join(self.texts or ())


class Page:
    """An ordinary response, collected: /metrics."""

    __slots__ = ("_parts", "_then", "ended", "status")

    def __init__(self, then: Callable[[bytes | None], None]) -> None:
        """``then`` gets the body, or None if there is none to be had."""
        self.ended = False
        self.status = 0
        self._parts: list[bytes] = []
        self._then = then

    def postponed(self, now_s: float) -> None:
        pass  # nobody waits for it

    def head(self, status: int, content_type: str) -> None:
        self.status = status

    def body(self, data: bytes, now_s: float) -> None:
        self._parts.append(data)

    def completed(self, now_s: float) -> None:
        self._finish(b"".join(self._parts) if self.status == 200 else None)

    def lost(self, reason: str, now_s: float) -> None:
        self._finish(None)

    def _finish(self, page: bytes | None) -> None:
        if not self.ended:
            self.ended = True
            self._then(page)


def _explain(page: bytes) -> str:
    """The words of an error body: OpenAI's ``error.message``, FastAPI's ``detail``, else its beginning."""
    try:
        body = msgspec.json.decode(page)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return page.decode(errors="replace").strip() or "no explanation"
    if isinstance(body, dict):
        for field in ("error", "message", "detail"):
            if body.get(field):
                return _message(body[field])
    return _message(body)


def _message(error: Any) -> str:
    if isinstance(error, dict) and error.get("message"):
        return str(error["message"])
    return str(error)
