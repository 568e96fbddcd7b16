"""Load plans, complete before the first request: ``make_plan`` from workload, arrivals and seed. Same seed, same bytes.

Every part has its own random stream (``numpy.random.SeedSequence.spawn``): other arrivals leave the prompts as they were. What
had to be cut is stated in the plan's notes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from octavo.bench.arrivals import (
    Arrivals,
    Closed,
    Horizon,
    Pace,
    Ramp,
    Replay,
    Stepped,
    Times,
    arrivals_name,
    parse_arrivals,
)
from octavo.bench.prompts import Draw, PromptOptions
from octavo.bench.specs import canonical
from octavo.bench.types import BenchRequest, LoadPlan
from octavo.bench.workloads import Conversation, Trace, Workload, parse_workload, workload_spec
from octavo.errors import ConfigError

# of a closed loop that is limited by time alone: nobody knows how many requests it will send, so as many are planned as
# users with responses within this time would send
FASTEST_RESPONSE_S = 0.1


class TimedConversation(NamedTuple):
    """A conversation and the intended send time of its first request, in s from the run's start; None in a closed loop."""

    send_s: float | None
    conversation: Conversation


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much to send and how. ``rate`` and ``speed`` are the flags of that name; the limits keep a plan in memory."""

    seed: int = 0
    rate: float | None = None
    speed: float | None = None
    duration_s: float | None = None
    num_requests: int | None = None
    prompts: PromptOptions = PromptOptions()
    max_requests: int = 20_000
    max_plan_tokens: int = 16_000_000  # about 40 bytes each

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: expected 0 or more", param="seed")
        if self.duration_s is not None and not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise ConfigError(f"duration = {self.duration_s:g} s: expected more than zero", param="duration_s")
        if self.num_requests is not None and not 1 <= self.num_requests <= self.max_requests:
            raise ConfigError(
                f"{self.num_requests} requests: expected 1 to {self.max_requests} (max_requests)", param="num_requests"
            )


def make_plan(workload: str, arrivals: str | None = None, options: PlanOptions | None = None) -> LoadPlan:
    """Everything that will be sent and when.

    Without ``arrivals``, a trace is replayed at its own times unless a rate is given; all else is Poisson. Raises
    ``ConfigError`` for specs and limits that cannot be honoured, ``BenchError`` for a malformed trace.
    """
    options = options or PlanOptions()
    shape = parse_workload(workload)
    recorded = isinstance(shape, Trace) and options.rate is None
    pace = parse_arrivals(arrivals or ("trace" if recorded else "poisson"), options.rate, options.speed)
    draw = Draw(options.seed, options.prompts, shape.FORM)
    filling = _Filling(options, draw, soft=isinstance(pace, Closed) and options.num_requests is None)
    for send_s, conversation in _starts(shape, pace, draw, options):
        if not filling.take(send_s, conversation):
            break
    plan = LoadPlan(
        workload=workload_spec(shape),
        arrivals=canonical(arrivals_name(pace), pace),
        seed=options.seed,
        requests=filling.requests,
        send_s=filling.send_s,
        concurrency=pace.users if isinstance(pace, Closed) else None,
        think_s=pace.think if isinstance(pace, Closed) else 0.0,
        duration_s=options.duration_s,
        notes=[*draw.tally.notes(options.prompts), *_repeat_note(options.prompts)],
    )
    check(plan)
    return plan


def _repeat_note(prompts: PromptOptions) -> list[str]:
    return [f"repeat {prompts.repeat}: same times and lengths, fresh tokens"] if prompts.repeat else []


def _starts(shape: Workload, pace: Pace, draw: Draw, options: PlanOptions) -> Iterator[TimedConversation]:
    if isinstance(pace, Replay):
        if not isinstance(shape, Trace):
            raise ConfigError("arrivals 'trace' replay the times of a trace; this workload has none", param="arrivals")
        return _replayed(shape, pace, draw, options)
    ends = isinstance(pace, Stepped) or (isinstance(pace, Ramp) and pace.over > 0)
    if options.duration_s is None and options.num_requests is None and not ends:
        raise ConfigError("the run has no end: give --duration or --num-requests", param="duration_s")
    if isinstance(pace, Closed):
        starts: Iterator[float | None] = iter([None] * _closed_count(pace, options))
    else:
        starts = iter(_open_times(pace, options).tolist())
    return _paired(starts, shape, draw)


def _open_times(pace: Arrivals, options: PlanOptions) -> Times:
    """One more than allowed, so that a plan that is too long is seen to be so."""
    stream = np.random.SeedSequence(options.seed).spawn(1)[0]
    horizon = Horizon(options.num_requests or options.max_requests + 1, options.duration_s or math.inf)
    return pace.times(horizon, np.random.default_rng(stream))


def _closed_count(pace: Closed, options: PlanOptions) -> int:
    if options.num_requests is not None:
        return options.num_requests
    assert options.duration_s is not None
    return min(options.max_requests + 1, math.ceil(pace.users * options.duration_s / (pace.think + FASTEST_RESPONSE_S)))


def _paired(starts: Iterator[float | None], shape: Workload, draw: Draw) -> Iterator[TimedConversation]:
    conversations = shape.conversations(draw)
    for num_paired, send_s in enumerate(starts):
        conversation = next(conversations, None)
        if conversation is None:
            draw.tally.remarks.append(f"the trace ended after {num_paired} requests; the plan ends there")
            return
        yield TimedConversation(send_s, conversation)


def _replayed(shape: Trace, pace: Replay, draw: Draw, options: PlanOptions) -> Iterator[TimedConversation]:
    for conversation in shape.conversations(draw):
        assert conversation.recorded_s is not None
        send_s = pace.send_s(conversation.recorded_s)
        if options.duration_s is not None and send_s >= options.duration_s:
            return
        yield TimedConversation(send_s, conversation)


class _Filling:
    """Collects conversations up to the limits. ``soft``: stop there with a note, because the run may never come so far."""

    def __init__(self, options: PlanOptions, draw: Draw, soft: bool) -> None:
        self._options = options
        self._draw = draw
        self._soft = soft
        self._num_tokens = 0  # of the requests taken
        self.requests: list[BenchRequest] = []
        self.send_s: list[float | None] = []

    def take(self, send_s: float | None, conversation: Conversation) -> bool:
        """Whether there is room for more."""
        if self._full():
            return False
        first = len(self.requests)
        for request in conversation.requests:
            if len(self.requests) == self._options.num_requests:
                break
            self.requests.append(
                msgspec.structs.replace(
                    request,
                    index=first + request.index,
                    after=None if request.after is None else first + request.after,
                )
            )
            self.send_s.append(send_s if request.after is None else None)
        self._num_tokens = self._draw.tally.tokens
        return len(self.requests) != self._options.num_requests

    def _full(self) -> bool:
        num_requests, num_tokens = len(self.requests), self._num_tokens
        options = self._options
        if num_requests < options.max_requests and num_tokens <= options.max_plan_tokens:
            return False
        if num_tokens > options.max_plan_tokens:
            what = f"{num_tokens} prompt tokens in {num_requests} requests; the limit is {options.max_plan_tokens}"
        else:
            what = f"more than {options.max_requests} requests"
        if self._soft:
            self._draw.tally.remarks.append(
                f"planned {num_requests} requests ({num_tokens} prompt tokens); the run ends with them if it comes so far"
            )
            return True
        raise ConfigError(
            f"the plan would hold {what}; lower --rate, --duration or --num-requests, or shorten prompts (--max-prompt)"
        )


def check(plan: LoadPlan) -> None:
    """Complete, sorted, every follower after its leader; raises ``ConfigError`` with what does not hold."""
    if not plan.requests:
        raise ConfigError("the plan holds no request: no arrival falls into the duration; raise --rate or --duration")
    problems = list(_problems(plan))
    if problems:
        raise ConfigError(f"the plan is broken in {len(problems)} places: {'; '.join(problems[:3])}")


def _problems(plan: LoadPlan) -> Iterator[str]:
    if len(plan.requests) != len(plan.send_s):
        yield f"{len(plan.requests)} requests, {len(plan.send_s)} send times"
        return
    last_s = 0.0
    for place, (request, send_s) in enumerate(zip(plan.requests, plan.send_s, strict=True)):
        where = f"request {place}"
        if request.index != place:
            yield f"{where} has index {request.index}"
        if sum(bool(one) for one in (request.text, request.token_ids, request.messages)) != 1:
            yield f"{where} has not exactly one of text, token_ids, messages"
        if request.max_tokens < 1 or request.think_s < 0:
            yield f"{where}: max_tokens = {request.max_tokens}, think_s = {request.think_s}"
        if request.after is not None and not 0 <= request.after < place:
            yield f"{where} follows request {request.after}, which is not before it"
        if (send_s is None) != (request.after is not None or plan.concurrency is not None):
            yield f"{where}: send time {send_s}"
        if send_s is None:
            continue
        if not (math.isfinite(send_s) and last_s <= send_s and send_s < (plan.duration_s or math.inf)):
            yield f"{where}: send time {send_s} s after {last_s} s in a run of {plan.duration_s} s"
        last_s = send_s


def digest(plan: LoadPlan) -> str:
    """SHA-256 of the plan's JSON: two runs with the same digest sent the same requests at the same intended times."""
    return hashlib.sha256(encode(plan)).hexdigest()


def encode(plan: LoadPlan) -> bytes:
    """The bytes that the digest is of; what a run stores before it sends."""
    return msgspec.json.encode(plan, order="deterministic")
