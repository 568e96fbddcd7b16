"""Generation job of one HTTP request, whatever its API: its choices run side by side in the engine, text comes back.

One ``Job`` is one HTTP request; each of its choices (prompt x n) is one submission. Closing the generator of a job, at any
moment, aborts whatever of it still runs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import blake2b
from statistics import fmean
from typing import NamedTuple, cast

import msgspec

from octavo.errors import EngineDeadError, OctavoError, RequestFailedError
from octavo.observability.events import FirstTokens, NextTokens, RequestFinished
from octavo.server.merge import merged
from octavo.server.state import ServedModel, ServerState
from octavo.text.response import ResponseDecoder, ResponseDelta, joined
from octavo.types import RequestTimings, SamplingParams, Submission, TokenEvent


class ChoiceDelta(NamedTuple):
    """New text of one choice, which is its place in the response."""

    choice: int
    delta: ResponseDelta


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose request it is, when it came and how it is to run."""

    tenant: str
    arrival_s: float
    priority: int = 0
    service_class: str = ""


@dataclass(slots=True)
class Job:
    """One HTTP request on its way through the engine, and what it has used so far."""

    id: str
    model: ServedModel
    submissions: list[Submission]
    num_prompt_tokens: int  # each prompt once, however many choices share it
    n: int = 1  # choices per prompt
    num_output_tokens: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
    num_cached_tokens: int = 0  # of the prompt tokens, from the prefix cache
    finished: list[RequestTimings] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Every choice has its finish reason."""
        return len(self.finished) == len(self.submissions)

    def timings(self) -> RequestTimings:
        """In seconds. With several choices: the longest wait and end, the first token of any, the mean time per token, the
        sum of preemptions."""
        some = self.finished
        if len(some) == 1:
            return some[0]
        per_token = [one.tpot_s for one in some if one.tpot_s is not None]
        return RequestTimings(
            queue_s=max((one.queue_s for one in some if one.queue_s is not None), default=None),
            ttft_s=min((one.ttft_s for one in some if one.ttft_s is not None), default=None),
            tpot_s=fmean(per_token) if per_token else None,
            e2e_s=max((one.e2e_s for one in some if one.e2e_s is not None), default=None),
            num_preemptions=sum(one.num_preemptions for one in some),
        )


class Prompts(NamedTuple):
    """What a request asks to be continued: the token ids of each prompt, ``n`` choices of each."""

    token_ids: list[list[int]]
    n: int = 1


def make_job(job_id: str, model: ServedModel, sender: Sender, prompts: Prompts, params: SamplingParams) -> Job:
    """Split a checked request into submissions; choice i of a seeded request gets a seed derived from i."""
    submissions: list[Submission] = []
    for token_ids in prompts.token_ids:
        for i in range(prompts.n):
            own = params
            if i and params.seed is not None:
                own = msgspec.structs.replace(params, seed=_derived_seed(params.seed, i))
            submissions.append(
                Submission(
                    request_id=f"{job_id}-{len(submissions)}",
                    prompt_token_ids=token_ids,
                    params=own,
                    arrival_s=sender.arrival_s,
                    priority=sender.priority,
                    tenant=sender.tenant,
                    service_class=sender.service_class,
                )
            )
    return Job(job_id, model, submissions, sum(map(len, prompts.token_ids)), prompts.n)


def _derived_seed(seed: int, index: int) -> int:
    digest = blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


async def run_job(job: Job, state: ServerState) -> AsyncGenerator[list[ChoiceDelta], None]:
    """Deltas of all choices, in batches of what is there at once. Raises ``OverloadedError`` before the first if full.

    A choice that fails ends the job with its error.
    """
    limiter, num_open = state.limiter, len(job.submissions)
    limiter.acquire(num_open, job.model.client.num_pending)
    choices = [_run_choice(job, index, state) for index in range(num_open)]
    try:
        async with aclosing(choices[0] if num_open == 1 else merged(choices)) as batches:
            async for deltas in batches:
                for _, delta in deltas:
                    if delta.finish_reason is not None:
                        num_open -= 1
                        limiter.release()
                yield deltas
    finally:
        for _ in range(num_open):
            limiter.release()


async def complete_job(job: Job, state: ServerState) -> list[ResponseDelta]:
    """Every choice as one delta that has all of it."""
    deltas_of: list[list[ResponseDelta]] = [[] for _ in job.submissions]
    async with aclosing(run_job(job, state)) as batches:
        async for deltas in batches:
            for index, delta in deltas:
                deltas_of[index].append(delta)
    return [joined(deltas) for deltas in deltas_of]


async def _run_choice(job: Job, index: int, state: ServerState) -> AsyncGenerator[list[ChoiceDelta], None]:
    """In batches of one, as ``merged`` takes them."""
    submission, client = job.submissions[index], job.model.client
    decoder = ResponseDecoder(job.model.tokenizer, submission)
    last_s: float | None = None
    reason, timings = "abort", None
    # The protocol states an iterator that can be closed; every shipped client returns an async generator.
    source = cast("AsyncGenerator[TokenEvent, None]", client.generate(submission))
    try:
        async with aclosing(source) as events:
            async for event in events:
                if count := len(event.token_ids):
                    last_s = _publish_tokens(state, submission, count, last_s)
                    job.num_output_tokens += count
                delta = decoder.decode(event)
                if delta.finish_reason is not None:
                    reason, timings = delta.finish_reason, delta.timings or RequestTimings()
                    if index % job.n == 0:  # the first choice speaks for its prompt
                        job.num_cached_tokens += decoder.num_cached_tokens
                    job.finished.append(timings)
                    yield [ChoiceDelta(index, delta)]
                    return
                if delta.text or delta.logprobs:
                    yield [ChoiceDelta(index, delta)]
        raise RequestFailedError("the engine ended this request without a last word")
    except OctavoError as error:
        reason = "error"
        if isinstance(error, RequestFailedError) and client.unhealthy_reason():
            raise EngineDeadError(error.message) from None  # not this request's fault: a retry can help
        raise
    finally:
        state.publish(RequestFinished(str(reason), len(submission.prompt_token_ids), decoder.num_tokens, timings))


def _publish_tokens(state: ServerState, submission: Submission, count: int, last_s: float | None) -> float:
    """Latency as the server sees it, on its own clock; returns the time."""
    now_s = time.monotonic()
    if last_s is None:
        state.publish(FirstTokens(count, now_s - submission.arrival_s))
    else:
        state.publish(NextTokens(count, (now_s - last_s) / count))
    return now_s
