"""Metrics of one repetition of a scenario: rates and medians of its records; and their spread over repetitions.

output_tokens_per_s   output tokens of all answered requests / (last end - first send)
decode_tokens_per_s   the decode phase alone. One user: sum of (n - 1) / sum of (end - first token). A burst, all requests sent
                      at once: tokens that arrive while all of them decode (after the last first token, before the first
                      end) / length of that time. Otherwise the phases overlap throughout and it is None.
ttft_s, tpot_s        medians over the answered requests
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from octavo.bench.types import LoadPlan, Outcome, RequestRecord

SHORTEST_PHASE_TOKENS = 8  # a decode phase with fewer tokens in it says nothing


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition of one scenario. Failed and timed-out requests are counted, never averaged in."""

    ok: int
    failed: int
    output_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    wall_s: float | None = None
    prompt_tokens: float | None = None  # mean, by the server's count
    cached_tokens: float | None = None
    ended_early: int = 0  # responses shorter than asked for: the server does not honour ignore_eos
    tokens_are_chunks: bool = False  # the server counts no tokens: chunks were counted instead
    error: str | None = None  # the first one
    invalid_reason: str | None = None  # the client could not keep up


class Spread(msgspec.Struct, frozen=True):
    """Over repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        found = [value for value in values if value is not None]
        return cls(float(np.median(found)), min(found), max(found)) if found else None


def measure(plan: LoadPlan, records: Sequence[RequestRecord], invalid_reason: str | None = None) -> Measured:
    """The metrics of one run of ``plan``."""
    ok = [
        one for one in records if one.outcome is Outcome.OK and one.end_s is not None and one.first_token_s is not None
    ]
    failed = len(plan.requests) - len(ok)
    error = next((one.error for one in records if one.outcome is not Outcome.OK and one.error), None)
    if not ok:
        return Measured(ok=0, failed=failed, error=error, invalid_reason=invalid_reason)
    wall_s = max(one.end_s or 0.0 for one in ok) - min(one.intended_s for one in ok)
    tokens = sum(one.output_tokens or 0 for one in ok)
    return Measured(
        ok=len(ok),
        failed=failed,
        output_tokens_per_s=tokens / wall_s if wall_s > 0 else None,
        decode_tokens_per_s=_decode_rate(plan, ok),
        ttft_s=_median([one.ttft_s for one in ok]),
        tpot_s=_median([one.tpot_s for one in ok]),
        wall_s=wall_s,
        prompt_tokens=_mean([one.prompt_tokens for one in ok]),
        cached_tokens=_mean([one.cached_tokens for one in ok]),
        ended_early=sum((one.output_tokens or 0) < plan.requests[one.index].max_tokens for one in ok),
        tokens_are_chunks=any(one.tokens_are_chunks for one in ok),
        error=error,
        invalid_reason=invalid_reason,
    )


def _decode_rate(plan: LoadPlan, ok: Sequence[RequestRecord]) -> float | None:
    if plan.concurrency == 1:
        several = [one for one in ok if (one.output_tokens or 0) > 1]
        time_s = sum((one.end_s or 0.0) - (one.first_token_s or 0.0) for one in several)
        return sum((one.output_tokens or 0) - 1 for one in several) / time_s if time_s > 0 else None
    if plan.concurrency is None or plan.concurrency < len(plan.requests) or len(ok) < len(plan.requests):
        return None
    start_s = max(one.first_token_s or 0.0 for one in ok)
    end_s = min(one.end_s or 0.0 for one in ok)
    tokens = sum(_tokens_between(one, start_s, end_s) for one in ok)
    return tokens / (end_s - start_s) if tokens >= SHORTEST_PHASE_TOKENS and end_s > start_s else None


def _tokens_between(record: RequestRecord, start_s: float, end_s: float) -> float:
    """By its chunks, scaled to the server's count of tokens where chunks hold more than one."""
    times, tokens = np.array(record.chunk_s), np.array(record.chunk_tokens, dtype=np.float64)
    if not len(times) or not tokens.sum():
        return 0.0
    inside = (times > start_s) & (times <= end_s)
    return float(tokens[inside].sum() * (record.output_tokens or tokens.sum()) / tokens.sum())


def _median(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.median(found)) if found else None


def _mean(values: Sequence[int | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None
