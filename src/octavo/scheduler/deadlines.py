"""Deadlines of output tokens under a request's SLO, shared by policies and accounting.

SLOs are attained if the first token comes within ``ttft_s`` of arrival and the mean time per token after it is at most
``tpot_s``. So output token n (0 is the first) is due at

    arrival + ttft                 n = 0
    first token's time + n tpot    n > 0

A request that ran ahead may take a longer step now: the SLO is on the mean. QoServe counts from arrival + ttft
instead, which would let a request whose first token came early break its TPOT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from octavo.scheduler.forecast import Forecast
from octavo.scheduler.step_time import StepLoad
from octavo.types import Request

PREFILL_SHARE = 1 / 3  # of a step's decode time that prefill gets at least: below, throughput collapses for a few SLOs
CATCH_UP = 0.7  # of the TPOT target, while a request makes up for what it is behind


def first_token_due(request: Request) -> float:
    """Seconds; infinite without a target."""
    ttft_s = request.service_class.ttft_s
    return math.inf if ttft_s is None else request.arrival_s + ttft_s


def next_token_due(request: Request) -> float:
    """Seconds; infinite without a target, and for a request whose first token came too late: nothing is left to attain."""
    targets, first_s = request.service_class, request.first_token_s
    ttft_s, tpot_s = targets.ttft_s, targets.tpot_s
    if first_s is None:
        return math.inf if ttft_s is None else request.arrival_s + ttft_s
    if tpot_s is None or (ttft_s is not None and first_s > request.arrival_s + ttft_s):
        return math.inf
    return first_s + (request.num_expected_tokens - request.num_prompt_tokens) * tpot_s


def time_left(decodes: Sequence[Request], forecast: Forecast, now: float) -> float:
    """Seconds that the tightest TPOT target of these decoding requests leaves for the next step; infinite if none binds.

    A request that has fallen behind its target and can still catch up asks for steps of ``CATCH_UP`` of it; one
    that cannot is lost and asks for nothing.
    """
    left = math.inf
    fastest_s: float | None = None
    for request in decodes:
        due = next_token_due(request)
        if due - now >= left:
            continue
        tpot_s = request.service_class.tpot_s or 0.0
        if due - now < CATCH_UP * tpot_s:
            if fastest_s is None:
                load = StepLoad(0, len(decodes), sum(one.num_planned_tokens for one in decodes))
                fastest_s = (1.0 + PREFILL_SHARE) * forecast.step_time.seconds(load)
            if not can_keep_tpot(request, forecast, fastest_s, now):
                continue
        left = min(left, max(due - now, CATCH_UP * tpot_s))
    return left


def can_keep_tpot(request: Request, forecast: Forecast, fastest_step_s: float, now: float) -> bool:
    """Would the request's mean time per token be within its target if every step from now on were the fastest one?"""
    targets = request.service_class
    if targets.tpot_s is None or request.first_token_s is None:
        return True
    remaining = forecast.remaining_output(request)
    total = len(request.token_ids) - request.num_prompt_tokens + remaining
    return now + remaining * fastest_step_s <= request.first_token_s + (total - 1) * targets.tpot_s


def wait_due(request: Request, default_s: float = math.inf) -> float:
    """The latest moment at which a waiting request must be served again."""
    max_wait_s = request.service_class.max_wait_s
    return request.waiting_since_s + (default_s if max_wait_s is None else max_wait_s)
