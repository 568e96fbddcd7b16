"""Responses of POST /v1/chat/completions: a job's deltas as a chat completion or as its streamed chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from octavo.errors import OctavoError
from octavo.server.generation import ChoiceDelta, Job
from octavo.server.http.responses import sse_event
from octavo.server.openai.chat_request import ChatCompletionRequest
from octavo.server.openai.logprobs import ChatLogprobs, chat_logprobs
from octavo.server.openai.usage import DONE, Usage, stream_error, usage_of
from octavo.text.response import ResponseDelta
from octavo.types import RequestTimings


class ResponseMessage(msgspec.Struct, kw_only=True, frozen=True):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(msgspec.Struct, kw_only=True, frozen=True):
    index: int
    message: ResponseMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str
    stop_reason: int | str | None = None


class ChatCompletion(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    timings: RequestTimings


class ChoiceMessageDelta(msgspec.Struct, kw_only=True, frozen=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, kw_only=True, frozen=True):
    index: int
    delta: ChoiceMessageDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | UnsetType | None = UNSET


class ChatCompletionChunk(msgspec.Struct, kw_only=True, frozen=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: RequestTimings | UnsetType = UNSET


class ChatRenderer:
    """One response. A choice's first chunk carries the role."""

    def __init__(self, job: Job, body: ChatCompletionRequest) -> None:
        self._job = job
        self._include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._usage: UnsetType | None = None if self._include_usage else UNSET  # of all chunks but the last
        self._begun: set[int] = set()

    def response(self, choices: Sequence[ResponseDelta]) -> ChatCompletion:
        job = self._job
        return ChatCompletion(
            id=job.id,
            created=job.created,
            model=job.model.name,
            choices=[_choice(index, whole) for index, whole in enumerate(choices)],
            usage=usage_of(job),
            timings=job.timings(),
        )

    def chunk(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        ends = self._job.done and not self._include_usage and deltas[-1].delta.finish_reason is not None
        last = len(deltas) - 1 if ends else None
        return b"".join(self._events(one, with_timings=i == last) for i, one in enumerate(deltas))

    def end(self) -> bytes:
        if not self._include_usage:
            return DONE
        return self._event([], usage_of(self._job), self._job.timings()) + DONE

    def error(self, error: OctavoError) -> bytes:
        return stream_error(error)

    def _events(self, one: ChoiceDelta, *, with_timings: bool) -> bytes:
        index, delta = one
        choice = ChunkChoice(
            index=index,
            delta=ChoiceMessageDelta(content=delta.text) if delta.text else ChoiceMessageDelta(),
            logprobs=chat_logprobs(delta.logprobs) if delta.logprobs else None,
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason if delta.finish_reason else UNSET,
        )
        event = self._event([choice], self._usage, self._job.timings() if with_timings else UNSET)
        if index in self._begun:
            return event
        self._begun.add(index)
        opening = ChunkChoice(index=index, delta=ChoiceMessageDelta(role="assistant", content=""))
        return self._event([opening], self._usage, UNSET) + event

    def _event(
        self, choices: list[ChunkChoice], usage: Usage | UnsetType | None, timings: RequestTimings | UnsetType
    ) -> bytes:
        job = self._job
        return sse_event(
            ChatCompletionChunk(
                id=job.id, created=job.created, model=job.model.name, choices=choices, usage=usage, timings=timings
            )
        )


def _choice(index: int, whole: ResponseDelta) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=ResponseMessage(content=whole.text),
        logprobs=chat_logprobs(whole.logprobs) if whole.logprobs else None,
        finish_reason=whole.finish_reason or "stop",
        stop_reason=whole.stop_reason,
    )
