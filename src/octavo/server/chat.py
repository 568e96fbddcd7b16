"""POST /v1/chat/completions: a conversation in, the assistant's next message out."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import InvalidRequestError
from octavo.server.answers import (
    AnswerMessage,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatLogprobs,
    ChunkChoice,
    Delta,
    Timings,
    Usage,
)
from octavo.server.generation import Job, Piece, Prompts, Sender, make_job, run_job
from octavo.server.inputs import encode_chat
from octavo.server.leave import Guard
from octavo.server.limits import check_cap, check_fits, sampling_params
from octavo.server.logprobs import chat_logprobs
from octavo.server.parsing import read_request
from octavo.server.requests import ChatCompletionRequest
from octavo.server.state import Backend, ServerState
from octavo.server.wire import DONE, EventStream, event, json_response


class ChatCompletions:
    """The route. ``create`` raises ``OctavoError`` for whatever it refuses."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def create(self, request: Request) -> Response:
        arrival_s = time.monotonic()
        body = await read_request(request, ChatCompletionRequest, self._state.config.max_body_bytes)
        backend = self._state.backend(body.model)
        sender = Sender(request.scope.get("octavo.tenant", ""), body.priority or 0, arrival_s, body.service_class or "")
        job = await self._job(body, backend, sender)
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            return EventStream(_stream(job, include_usage), self._state.guards)
        async with Guard(request.receive, self._state.guards):
            return json_response(await _answer(job))

    async def _job(self, body: ChatCompletionRequest, backend: Backend, sender: Sender) -> Job:
        state, info = self._state, backend.client.info
        logprobs = self._logprobs(body)
        params = sampling_params(body, state.config, info, default_max_tokens=None, logprobs=logprobs)
        token_ids = await encode_chat(
            body.messages,
            backend.tokenizer,
            add_generation_prompt=body.add_generation_prompt is not False,
            add_special_tokens=bool(body.add_special_tokens),
            variables=body.chat_template_kwargs or {},
        )
        check_fits(len(token_ids), params.max_tokens, info, "messages")
        job_id = f"chatcmpl-{uuid.uuid4().hex}"
        return make_job(job_id, state, backend, Prompts([token_ids], [""], body.n or 1), params, sender)

    def _logprobs(self, body: ChatCompletionRequest) -> int | None:
        if body.top_logprobs is not None:
            check_cap("top_logprobs", body.top_logprobs, self._state.config.max_logprobs)
            if body.top_logprobs and not body.logprobs:
                raise InvalidRequestError(
                    f"top_logprobs: {body.top_logprobs}, but logprobs is not true", param="top_logprobs"
                )
        return body.top_logprobs or 0 if body.logprobs else None


def _logprobs_of(job: Job, piece: Piece) -> ChatLogprobs | None:
    return chat_logprobs(job.backend.tokenizer, piece.logprobs) if piece.logprobs else None


async def _answer(job: Job) -> ChatAnswer:
    pieces_of: list[list[Piece]] = [[] for _ in job.choices]
    async with aclosing(run_job(job)) as batches:
        async for pieces in batches:
            for piece in pieces:
                pieces_of[piece.index].append(piece)
    return ChatAnswer(
        id=job.id,
        created=job.created,
        model=job.state.model_name,
        choices=[_choice(job, pieces) for pieces in pieces_of],
        usage=job.usage(),
        timings=job.timings(),
    )


def _choice(job: Job, pieces: list[Piece]) -> ChatChoice:
    last = pieces[-1]
    entries = [entry for piece in pieces for entry in piece.logprobs or ()]
    return ChatChoice(
        index=last.index,
        message=AnswerMessage(content="".join(piece.text for piece in pieces)),
        logprobs=chat_logprobs(job.backend.tokenizer, entries) if entries else None,
        finish_reason=last.finish_reason or "stop",
        stop_reason=last.stop_reason,
    )


class _ChunkMaker:
    """Pieces to events; a choice's first chunk carries the role."""

    def __init__(self, job: Job, include_usage: bool) -> None:
        self._job = job
        self._usage: UnsetType | None = None if include_usage else UNSET
        self._begun: set[int] = set()

    def chunks(self, piece: Piece, timings: Timings | UnsetType) -> bytes:
        choice = ChunkChoice(
            index=piece.index,
            delta=Delta(content=piece.text) if piece.text else Delta(),
            logprobs=_logprobs_of(self._job, piece),
            finish_reason=piece.finish_reason,
            stop_reason=piece.stop_reason if piece.finish_reason else UNSET,
        )
        data = self._event([choice], self._usage, timings)
        if piece.index in self._begun:
            return data
        self._begun.add(piece.index)
        opening = ChunkChoice(index=piece.index, delta=Delta(role="assistant", content=""))
        return self._event([opening], self._usage, UNSET) + data

    def usage(self) -> bytes:
        return self._event([], self._job.usage(), self._job.timings())

    def _event(
        self, choices: list[ChunkChoice], usage: Usage | UnsetType | None, timings: Timings | UnsetType
    ) -> bytes:
        job = self._job
        return event(
            ChatChunk(
                id=job.id,
                created=job.created,
                model=job.state.model_name,
                choices=choices,
                usage=usage,
                timings=timings,
            )
        )


async def _stream(job: Job, include_usage: bool) -> AsyncGenerator[bytes, None]:
    maker = _ChunkMaker(job, include_usage)
    async with aclosing(run_job(job)) as batches:
        async for pieces in batches:
            last = pieces[-1] if job.done and not include_usage and pieces[-1].finish_reason else None
            yield b"".join(maker.chunks(piece, job.timings() if piece is last else UNSET) for piece in pieces)
    if include_usage:
        yield maker.usage()
    yield DONE
