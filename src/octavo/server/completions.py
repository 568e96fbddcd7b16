"""POST /v1/completions: text or token ids in, their continuation out."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import UnsupportedParameterError
from octavo.server.answers import CompletionAnswer, CompletionChoice, CompletionLogprobs
from octavo.server.generation import Job, Piece, Prompts, Sender, make_job, run_job
from octavo.server.inputs import check_prompts_fit, encode_prompts, split_prompts
from octavo.server.leave import Guard
from octavo.server.limits import check_cap, sampling_params
from octavo.server.logprobs import completion_logprobs
from octavo.server.parsing import read_request
from octavo.server.requests import CompletionRequest
from octavo.server.state import Backend, ServerState
from octavo.server.wire import DONE, EventStream, event, json_response

DEFAULT_MAX_TOKENS = 16  # OpenAI's and vLLM's


class Completions:
    """The route. ``create`` raises ``OctavoError`` for whatever it refuses."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def create(self, request: Request) -> Response:
        arrival_s = time.monotonic()
        body = await read_request(request, CompletionRequest, self._state.config.max_body_bytes)
        backend = self._state.backend(body.model)
        sender = Sender(request.scope.get("octavo.tenant", ""), body.priority or 0, arrival_s, body.service_class or "")
        job = await self._job(body, backend, sender)
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            return EventStream(_stream(job, include_usage), self._state.guards)
        async with Guard(request.receive, self._state.guards):
            return json_response(await _answer(job))

    async def _job(self, body: CompletionRequest, backend: Backend, sender: Sender) -> Job:
        state, info = self._state, backend.client.info
        n = body.n or 1
        if body.best_of is not None and body.best_of != n:
            raise UnsupportedParameterError(f"best_of: {body.best_of}, only n = {n} is supported", param="best_of")
        if body.logprobs is not None:
            check_cap("logprobs", body.logprobs, state.config.max_logprobs)
            if body.echo:
                raise UnsupportedParameterError("echo: not together with logprobs yet", param="echo")
        params = sampling_params(
            body, state.config, info, default_max_tokens=DEFAULT_MAX_TOKENS, logprobs=body.logprobs
        )
        prompts = split_prompts(body.prompt, state.config.max_prompts)
        token_ids = await encode_prompts(body, prompts, backend.tokenizer, info)
        check_prompts_fit(token_ids, params.max_tokens, info)
        echoes = [""] * len(prompts)
        if body.echo:
            echoes = [p if isinstance(p, str) else backend.tokenizer.decode(p) for p in prompts]
        job_id = f"cmpl-{uuid.uuid4().hex}"
        return make_job(job_id, state, backend, Prompts(token_ids, echoes, n), params, sender)


@dataclass(slots=True)
class _Shaper:
    """Pieces to choices; remembers how far each choice's text has come, for the offsets of logprobs."""

    job: Job
    offsets: dict[int, int] = field(default_factory=dict)

    def choice(self, piece: Piece) -> CompletionChoice:
        logprobs: CompletionLogprobs | None = None
        if piece.logprobs:
            offset = self.offsets.get(piece.index, 0)
            logprobs = completion_logprobs(self.job.backend.tokenizer, piece.logprobs, piece.token_texts, offset)
            self.offsets[piece.index] = offset + sum(map(len, piece.token_texts))
        return CompletionChoice(
            index=piece.index,
            text=piece.text,
            logprobs=logprobs,
            finish_reason=piece.finish_reason,
            stop_reason=piece.stop_reason,
        )

    def answer(self, choices: list[CompletionChoice], **more: object) -> CompletionAnswer:
        job = self.job
        return CompletionAnswer(
            id=job.id,
            created=job.created,
            model=job.state.model_name,
            choices=choices,
            **more,  # type: ignore[arg-type]
        )


async def _answer(job: Job) -> CompletionAnswer:
    shaper = _Shaper(job)
    parts: list[list[CompletionChoice]] = [[] for _ in job.choices]
    async with aclosing(run_job(job)) as batches:
        async for pieces in batches:
            for piece in pieces:
                parts[piece.index].append(shaper.choice(piece))
    return shaper.answer([_joined(pieces) for pieces in parts], usage=job.usage(), timings=job.timings())


def _joined(parts: list[CompletionChoice]) -> CompletionChoice:
    """One choice from its chunks; the last one has the end."""
    last = parts[-1]
    some = [part.logprobs for part in parts if part.logprobs is not None]
    logprobs = None
    if some:
        logprobs = CompletionLogprobs(
            text_offset=[x for part in some for x in part.text_offset],
            token_logprobs=[x for part in some for x in part.token_logprobs],
            tokens=[x for part in some for x in part.tokens],
            top_logprobs=[x for part in some for x in part.top_logprobs],
        )
    return CompletionChoice(
        index=last.index,
        text="".join(part.text for part in parts),
        logprobs=logprobs,
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
    )


async def _stream(job: Job, include_usage: bool) -> AsyncGenerator[bytes, None]:
    shaper = _Shaper(job)
    usage = None if include_usage else UNSET
    async with aclosing(run_job(job)) as batches:
        async for pieces in batches:
            last = pieces[-1] if job.done and not include_usage and pieces[-1].finish_reason else None
            yield b"".join(
                event(
                    shaper.answer(
                        [shaper.choice(piece)], usage=usage, timings=job.timings() if piece is last else UNSET
                    )
                )
                for piece in pieces
            )
    if include_usage:
        yield event(shaper.answer([], usage=job.usage(), timings=job.timings()))
    yield DONE
