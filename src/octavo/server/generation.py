"""How does a request become text? Its choices run side by side in the engine and come back as pieces of text.

One ``Job`` is one HTTP request; each of its ``Choice``s (prompt x n) is one submission. Closing the generator of a job, at
any moment, aborts whatever of it still runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import cast

import msgspec

from octavo.errors import EngineDeadError, OctavoError, RequestFailedError
from octavo.server.answers import PromptTokensDetails, Timings, Usage
from octavo.server.choice_clock import ChoiceClock, combined
from octavo.server.state import Backend, ServerState
from octavo.text.stream import TextStream
from octavo.types import FinishReason, RequestTimings, SamplingParams, Submission, TokenEvent, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Choice:
    """One submission. ``echo`` is sent before its text; ``index`` is its place in the answer."""

    index: int
    submission: Submission
    echo: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of one choice, the tokens behind it, and its end if this is the last one."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    token_texts: tuple[str, ...] = ()  # what each token added to the text, before any cut
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True)
class Job:
    """One HTTP request on its way through the engine, and what it has used so far."""

    id: str
    state: ServerState
    backend: Backend
    choices: list[Choice]
    num_prompt_tokens: int  # each prompt once, however many choices share it
    num_output_tokens: int = 0
    num_finished: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
    cached: dict[int, int] = field(default_factory=dict)  # choice index -> prompt tokens from the prefix cache
    clocks: list[RequestTimings] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.num_finished == len(self.choices)

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=self.num_output_tokens,
            total_tokens=self.num_prompt_tokens + self.num_output_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(self.cached.values())),
        )

    def timings(self) -> Timings:
        return combined(self.clocks)


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a request asks to be continued: token ids per prompt, the text to echo per prompt, ``n`` choices of each."""

    token_ids: list[list[int]]
    echoes: list[str]
    n: int = 1


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose request it is and how it is to run."""

    tenant: str
    priority: int
    arrival_s: float
    service_class: str = ""


def make_job(
    job_id: str, state: ServerState, backend: Backend, prompts: Prompts, params: SamplingParams, sender: Sender
) -> Job:
    """Split a checked request into submissions; choice i of a seeded request gets a seed derived from i."""
    choices: list[Choice] = []
    for token_ids, echo in zip(prompts.token_ids, prompts.echoes, strict=True):
        for i in range(prompts.n):
            index = len(choices)
            own = (
                params if i == 0 or params.seed is None else msgspec.structs.replace(params, seed=_seed(params.seed, i))
            )
            submission = Submission(
                request_id=f"{job_id}-{index}",
                prompt_token_ids=token_ids,
                params=own,
                arrival_s=sender.arrival_s,
                priority=sender.priority,
                tenant=sender.tenant,
                service_class=sender.service_class,
            )
            choices.append(Choice(index, submission, echo))
    cached = dict.fromkeys(range(0, len(choices), prompts.n), 0)  # the first choice speaks for its prompt
    return Job(job_id, state, backend, choices, sum(map(len, prompts.token_ids)), cached=cached)


def _seed(seed: int, index: int) -> int:
    digest = blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


async def run_job(job: Job) -> AsyncGenerator[list[Piece], None]:
    """Pieces of all choices, in batches of what is there at once. Raises ``OverloadedError`` before the first if full.

    A choice that fails ends the job with its error.
    """
    admission = job.state.admission
    admission.enter(len(job.choices), job.backend.client.num_pending)
    num_inside = len(job.choices)
    try:
        async with aclosing(_merged([_run_choice(job, choice) for choice in job.choices])) as batches:
            async for pieces in batches:
                for piece in pieces:
                    if piece.finish_reason is not None:
                        num_inside -= 1
                        admission.leave()
                yield pieces
    finally:
        for _ in range(num_inside):
            admission.leave()


async def _run_choice(job: Job, choice: Choice) -> AsyncGenerator[Piece, None]:
    submission, metrics = choice.submission, job.state.metrics
    clock = ChoiceClock(submission.arrival_s, metrics)
    stream = TextStream(job.backend.tokenizer, submission.params)
    text, reason = choice.echo, "abort"
    # The protocol promises an iterator that can be closed; every shipped client returns an async generator.
    source = cast("AsyncGenerator[TokenEvent, None]", job.backend.client.generate(submission))
    try:
        async with aclosing(source) as events:
            async for event in events:
                clock.tokens(len(event.token_ids), event.timings)
                if choice.index in job.cached and event.num_cached_tokens:
                    job.cached[choice.index] = event.num_cached_tokens
                job.num_output_tokens += len(event.token_ids)
                piece = _piece(choice.index, text, event, stream, submission.params)
                text = ""
                if piece.finish_reason is not None:
                    reason = piece.finish_reason
                    job.num_finished += 1
                    job.clocks.append(clock.end(event.timings))
                if piece.text or piece.logprobs or piece.finish_reason is not None:
                    yield piece
                if piece.finish_reason is not None:
                    return
        raise RequestFailedError("the engine ended this request without a last word")
    except OctavoError as error:
        reason = "error"
        if isinstance(error, RequestFailedError) and job.backend.client.unhealthy_reason():
            raise EngineDeadError(error.message) from None  # not this request's fault: a retry can help
        raise
    finally:
        clock.report(reason, len(submission.prompt_token_ids))


def _piece(index: int, prefix: str, event: TokenEvent, stream: TextStream, params: SamplingParams) -> Piece:
    """One event as text. Raises ``RequestFailedError`` if the engine gave the request up."""
    if event.finish_reason is FinishReason.ERROR:
        raise RequestFailedError(event.error or "the engine failed this request")
    if event.finish_reason is FinishReason.ABORT:
        raise RequestFailedError("the engine aborted this request")
    shown = event.token_ids
    if event.finish_reason is FinishReason.STOP and not params.include_stop_str_in_output:
        shown = shown[:-1]  # the token that ended it is not part of the text
    delta = stream.push(shown)
    text, finish, stop_reason = prefix + delta.text, event.finish_reason, event.stop_reason
    if finish is not None:
        text += stream.finish()
    if stream.stopped_by is not None:
        finish, stop_reason = FinishReason.STOP, stream.stopped_by
    # One text per token, for the offsets of logprobs: a token that is not shown adds nothing.
    texts = (*delta.token_texts, *[""] * (len(event.token_ids) - len(delta.token_texts)))
    reason = None if finish is None else str(finish)
    return Piece(index, text, event.token_ids, event.logprobs, texts, reason, stop_reason)


async def _merged(sources: list[AsyncGenerator[Piece, None]]) -> AsyncGenerator[list[Piece], None]:
    """All sources at once; each batch is whatever has arrived. The first error ends it; closing it closes the sources."""
    if len(sources) == 1:
        async with aclosing(sources[0]) as only:
            async for piece in only:
                yield [piece]
        return
    queue: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(source, queue)) for source in sources]
    num_open = len(pumps)
    try:
        while num_open:
            items = [await queue.get()]
            while not queue.empty():
                items.append(queue.get_nowait())
            num_open -= sum(item is None for item in items)
            pieces = [item for item in items if isinstance(item, Piece)]
            if pieces:
                yield pieces
            for item in items:
                if isinstance(item, BaseException):
                    raise item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: AsyncGenerator[Piece, None], queue: asyncio.Queue[Piece | BaseException | None]) -> None:
    try:
        async with aclosing(source) as pieces:
            async for piece in pieces:
                queue.put_nowait(piece)
    except Exception as error:
        queue.put_nowait(error)
    else:
        queue.put_nowait(None)
