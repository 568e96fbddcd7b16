"""Responses of POST /v1/completions: a job's deltas as a text completion or as its streamed chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from octavo.errors import OctavoError
from octavo.server.generation import ChoiceDelta, Job
from octavo.server.http.responses import sse_event
from octavo.server.openai.completion_request import CompletionRequest, split_prompts
from octavo.server.openai.logprobs import CompletionLogprobs, completion_logprobs
from octavo.server.openai.usage import DONE, Usage, stream_error, usage_of
from octavo.text.response import ResponseDelta
from octavo.types import RequestTimings


class CompletionChoice(msgspec.Struct, kw_only=True, frozen=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class Completion(msgspec.Struct, kw_only=True, frozen=True):
    """A completion, or one chunk of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    timings: RequestTimings | UnsetType = UNSET


class CompletionRenderer:
    """One response. A choice's text begins with its prompt if ``echo`` asks for it."""

    def __init__(self, job: Job, body: CompletionRequest) -> None:
        self._job = job
        self._include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._echoes: dict[int, str] = {}  # choice -> text that is still to be sent before its own
        if body.echo:
            decode = job.model.tokenizer.decode
            texts = [p if isinstance(p, str) else decode(p) for p in split_prompts(body.prompt)]
            self._echoes = {index: texts[index // job.n] for index in range(len(job.submissions))}
        self._offsets: dict[int, int] = {}  # choice -> length of its text so far, before any cut

    def response(self, choices: Sequence[ResponseDelta]) -> Completion:
        shaped = [self._choice(ChoiceDelta(index, whole)) for index, whole in enumerate(choices)]
        return self._completion(shaped, usage_of(self._job), self._job.timings())

    def chunk(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        usage = None if self._include_usage else UNSET
        ends = self._job.done and not self._include_usage and deltas[-1].delta.finish_reason is not None
        last = len(deltas) - 1 if ends else None
        return b"".join(
            sse_event(self._completion([self._choice(one)], usage, self._job.timings() if i == last else UNSET))
            for i, one in enumerate(deltas)
        )

    def end(self) -> bytes:
        if not self._include_usage:
            return DONE
        return sse_event(self._completion([], usage_of(self._job), self._job.timings())) + DONE

    def error(self, error: OctavoError) -> bytes:
        return stream_error(error)

    def _choice(self, one: ChoiceDelta) -> CompletionChoice:
        index, delta = one
        logprobs: CompletionLogprobs | None = None
        if delta.logprobs:
            offset = self._offsets.get(index, 0)
            logprobs = completion_logprobs(delta.logprobs, delta.token_texts, offset)
            self._offsets[index] = offset + sum(map(len, delta.token_texts))
        return CompletionChoice(
            index=index,
            text=self._echoes.pop(index, "") + delta.text,
            logprobs=logprobs,
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
        )

    def _completion(
        self,
        choices: list[CompletionChoice],
        usage: Usage | UnsetType | None,
        timings: RequestTimings | UnsetType,
    ) -> Completion:
        job = self._job
        return Completion(
            id=job.id, created=job.created, model=job.model.name, choices=choices, usage=usage, timings=timings
        )
