"""Effect of a step's sampled tokens on a request: tokens accepted, finish reason, event, timings."""

from __future__ import annotations

import msgspec

from octavo.types import FinishReason, Request, RequestTimings, Sample, TokenEvent


def advance(request: Request, sample: Sample, now: float) -> TokenEvent:
    """Append what counts of the sampled tokens. With ``finish_reason`` if the request ends with them; the first event has
    timings."""
    accepted, reason, stop = accept(request, sample.token_ids)
    request.token_ids += accepted
    request.last_token_s = now
    event = TokenEvent(
        request_id=request.request_id,
        token_ids=accepted,
        time_s=now,
        finish_reason=reason,
        stop_reason=stop,
        num_cached_tokens=request.num_cached_tokens,
    )
    if sample.logprobs is not None:
        event = msgspec.structs.replace(event, logprobs=sample.logprobs[: len(accepted)])
    if request.first_token_s is None:
        request.first_token_s = now
        event = msgspec.structs.replace(event, timings=timings(request, now))
    return event


def accept(request: Request, token_ids: tuple[int, ...]) -> tuple[tuple[int, ...], FinishReason | None, int | None]:
    """How many of the sampled tokens count, whether the request ends with them, and by which stop token."""
    num_before = len(request.token_ids) - request.num_prompt_tokens
    if num_before + len(token_ids) < request.max_tokens and request.stop_ids.isdisjoint(token_ids):
        return token_ids, None, None  # by far the most
    for count, token_id in enumerate(token_ids, start=1):
        if token_id in request.stop_ids and num_before + count > request.params.min_tokens:
            stop = token_id if token_id in request.params.stop_token_ids else None
            return token_ids[:count], FinishReason.STOP, stop
        if num_before + count >= request.max_tokens:
            return token_ids[:count], FinishReason.LENGTH, None
    return token_ids, None, None


def timings(request: Request, now: float) -> RequestTimings:
    """As far as they are known at ``now``."""

    def since_arrival(time_s: float | None) -> float | None:
        return None if time_s is None else max(0.0, time_s - request.arrival_s)

    tpot_s = None
    if request.first_token_s is not None and request.last_token_s is not None and request.num_output_tokens > 1:
        tpot_s = (request.last_token_s - request.first_token_s) / (request.num_output_tokens - 1)
    return RequestTimings(
        queue_s=since_arrival(request.first_scheduled_s),
        ttft_s=since_arrival(request.first_token_s),
        tpot_s=tpot_s,
        e2e_s=since_arrival(now),
        num_preemptions=request.num_preemptions,
    )
