"""Data types of a benchmark: SLO, load plan, request record, latency summary, run. Plain data; no I/O, no statistics.

A run goes: ``Workload`` -> requests, ``Arrivals`` -> intended send times, together the ``LoadPlan`` (complete and stored before
the first request) -> the client -> one ``RequestRecord`` each -> ``Run`` (what is on disk) -> ``Summary``.

Times in a record are seconds since the run's start, on the client's monotonic clock. Every latency is taken from the *intended*
send time; the uncorrected one, from the actual send, stands beside it.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

SCHEMA_VERSION = 1


class Slo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Latency targets, in seconds; None: no target."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


class BenchRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request of the plan. Exactly one of ``text``, ``token_ids``, ``messages`` is the prompt."""

    index: int
    text: str | None = None
    token_ids: list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    max_tokens: int = 128
    ignore_eos: bool = True  # output lengths are the workload's, not the model's mood
    tenant: str = ""
    service_class: str = ""
    priority: int | None = None
    slo: Slo | None = None  # None: the run's own
    # index of the turn before: sent ``think_s`` after that one ended. ``messages`` then holds the new messages only: the
    # client sends those of the turn before, its response, then these
    after: int | None = None
    think_s: float = 0.0
    extra: dict[str, Any] = {}  # further body fields, e.g. temperature, seed


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that will be sent, decided before the run. ``send_s[i]`` is request i's intended send time; None for one
    that follows another turn, or a user of a closed loop, whose time depends on a response. A user of a closed loop takes the
    first request that nobody took and that follows no other, then the turns that follow it, then the next."""

    workload: str
    arrivals: str
    seed: int
    requests: list[BenchRequest]
    send_s: list[float | None]
    concurrency: int | None = None  # closed loop: users that each keep one request in flight
    think_s: float = 0.0  # closed loop: a user's pause between response and next request
    duration_s: float | None = None  # stop sending after this long
    # what was done to the workload (lengths clipped, trace scaled or ended early), in words for the report
    notes: list[str] = []


class Outcome(enum.StrEnum):
    OK = "ok"
    FAILED = "failed"  # refused, broken off, malformed; ``error`` says what
    TIMED_OUT = "timed_out"  # no end within the client's time limit
    CANCELLED = "cancelled"  # the run was stopped while it was in flight; counted nowhere


class RequestRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one request saw. ``chunk_s`` and ``chunk_tokens`` run in parallel: one entry per chunk with text (or tokens)."""

    index: int
    intended_s: float
    sent_s: float  # when its first byte was written; sent_s - intended_s is the client's own lag
    first_token_s: float | None = None  # first non-empty token
    end_s: float | None = None
    chunk_s: list[float] = []
    chunk_tokens: list[int] = []  # from the server's running usage if it sends one, else 1 per chunk
    outcome: Outcome = Outcome.OK
    error: str | None = None
    status: int | None = None
    prompt_tokens: int | None = None  # from the server's usage
    output_tokens: int | None = None  # from the server's usage
    tokens_are_chunks: bool = False  # the server sent no usage: output_tokens is the number of chunks
    cached_tokens: int | None = None
    finish_reason: str | None = None
    tenant: str = ""
    service_class: str = ""
    server_timings: dict[str, float | None] = {}  # the server's own account, if it sends one
    slo: Slo | None = None  # its own; None: the run's
    not_sent: bool = False  # it never left the client: the turn before it or the whole server had failed

    @property
    def client_lag_s(self) -> float:
        return self.sent_s - self.intended_s

    @property
    def ttft_s(self) -> float | None:
        """Time to first token = first non-empty token - intended send."""
        return None if self.first_token_s is None else self.first_token_s - self.intended_s

    @property
    def uncorrected_ttft_s(self) -> float | None:
        return None if self.first_token_s is None else self.first_token_s - self.sent_s

    @property
    def e2e_s(self) -> float | None:
        return None if self.end_s is None else self.end_s - self.intended_s

    @property
    def uncorrected_e2e_s(self) -> float | None:
        return None if self.end_s is None else self.end_s - self.sent_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token = (E2E - TTFT) / (n - 1); None for fewer than two tokens."""
        if self.first_token_s is None or self.end_s is None or self.output_tokens is None or self.output_tokens < 2:
            return None
        return (self.end_s - self.first_token_s) / (self.output_tokens - 1)


class Interval(msgspec.Struct, frozen=True):
    """A value with its 95 % confidence interval; all None where there is nothing to say (no such requests)."""

    value: float | None
    low: float | None
    high: float | None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. ``effective``: as many independent values would say as much about the mean, or about the p99, as these ``num``
    correlated ones do; the intervals are as wide as that asks for."""

    mean: Interval
    p50: Interval
    p90: Interval
    p99: Interval
    num: int = 0
    effective_mean: float | None = None
    effective_p99: float | None = None


class SloCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The binomial check of "at least ``share`` of all requests are within the limit" (`statistics/binomial_check.py`)."""

    what: str  # "ttft_s", "tpot_s", "e2e_s"; "all": every target of a request, its own or the run's
    limit_s: float | None  # None for "all"
    share: float
    confidence: float
    attained: bool = msgspec.field(name="kept")  # shown with that confidence
    num_requests: int  # in the steady state, failed and timed-out ones included
    num_over: int  # over the limit, or without a response
    effective_requests: float  # independent ones that are worth as much; the check counts these
    share_low: float  # lower confidence bound of the share within the limit
    num_needed: int  # such requests that would show it at the observed share; 0: no number would


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    ok: int
    failed: int
    timed_out: int
    warm_up: int = 0  # of the ok ones, cut from the steady state


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The steady state of a run. Failed and timed-out requests are counted, never averaged in."""

    ttft_s: Latency
    tpot_s: Latency
    e2e_s: Latency
    inter_chunk_s: Latency
    uncorrected_ttft_s: Latency
    uncorrected_e2e_s: Latency
    goodput_rps: Interval  # requests per second that met all their SLOs
    output_tokens_per_s: Interval
    total_tokens_per_s: Interval
    request_rate_rps: Interval
    tokens_per_chunk: float | None = None
    jain_fairness: float | None = None  # over tenants' output tokens; None with fewer than two
    groups: dict[
        str, dict[str, Any]
    ] = {}  # "class:<name>" and "tenant:<name>": goodput, counts, latencies of the group
    warm_up_s: float = 0.0  # cut by MSER
    stationary: bool | None = None  # slope test on the steady state; None: too few requests to tell
    slope_p_value: float | None = None
    slo_checks: list[SloCheck] = msgspec.field(name="promises", default_factory=list)  # empty without an SLO
    warnings: list[str] = []  # why values are less certain than their intervals say


class ClientLag(msgspec.Struct, frozen=True, kw_only=True):
    mean: float
    p99: float
    max: float


class Run(msgspec.Struct, kw_only=True):
    """One result file. ``report`` and ``compare`` need nothing else."""

    schema_version: int = SCHEMA_VERSION
    name: str
    url: str
    model: str
    created: str  # ISO 8601, UTC
    command: str
    commit: str
    machine: dict[str, Any]
    octavo_version: str
    seed: int
    workload: str
    arrivals: str
    plan_digest: str  # SHA-256 of the load plan
    slo: Slo
    duration_s: float
    requests: Counts
    client_lag_s: ClientLag
    valid: bool
    invalid_reason: str | None
    summary: Summary
    formulas: dict[str, str]
    notes: list[str] = []  # what the plan had to clip, scale or end early
    server_metrics: dict[str, Any] = {}  # scraped before, during and after, when offered
    server_series: list[dict[str, float]] = []  # t_s, running, waiting, ...: for the timeline
    records: list[RequestRecord] = []
