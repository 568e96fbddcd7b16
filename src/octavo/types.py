"""Data types shared by all rooms (Request, Plan, StepResult, TokenEvent) and the protocols between them.

A request's life: ``Submission`` (server) -> ``Request`` (scheduler) -> ``Plan`` (scheduler) -> ``StepResult`` (executor)
-> ``TokenEvent`` (engine). All times are seconds of ``time.monotonic()``, which every process of one machine shares;
durations end in ``_s`` as well and say so.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Protocol

import msgspec
from msgspec import Meta


class FinishReason(enum.StrEnum):
    """Why a request ended. Every accepted request ends exactly once."""

    STOP = "stop"  # end-of-sequence token, stop token or stop string
    LENGTH = "length"  # max_tokens reached
    ABORT = "abort"  # the client left or asked for it
    ERROR = "error"  # see TokenEvent.error


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the next token is chosen. Names and meanings are OpenAI's, and vLLM's for what OpenAI lacks.

    Order of application: logit_bias, min_tokens mask, repetition / presence / frequency penalties, temperature, then
    top_k, min_p, top_p. ``temperature=0`` is greedy. ``seed`` makes the text a function of the request alone:
    independent of the batch it runs in.
    """

    max_tokens: (
        Annotated[int, Meta(ge=1, description="tokens to generate at most; none: as many as fit in the context")] | None
    ) = None
    min_tokens: Annotated[int, Meta(ge=0, description="no end of sequence before so many tokens")] = 0
    temperature: Annotated[float, Meta(ge=0, description="0 is greedy; higher is more varied")] = 1.0
    top_k: Annotated[int, Meta(ge=-1, description="only the k most likely tokens; 0 or -1: off")] = 0
    top_p: Annotated[
        float, Meta(gt=0, le=1, description="only the most likely tokens that together have this probability")
    ] = 1.0
    min_p: Annotated[
        float, Meta(ge=0, le=1, description="only tokens with this share of the most likely one's probability")
    ] = 0.0
    presence_penalty: Annotated[float, Meta(description="subtracted from tokens that were generated before")] = 0.0
    frequency_penalty: Annotated[float, Meta(description="subtracted once for each time a token was generated")] = 0.0
    repetition_penalty: Annotated[
        float, Meta(gt=0, description="divides the logits of tokens seen before, prompt included; 1: off")
    ] = 1.0
    logit_bias: dict[int, float] | None = None
    seed: Annotated[int, Meta(description="the same seed gives the same text, in any batch")] | None = None
    stop: Annotated[tuple[str, ...], Meta(description="text that ends the answer and is not part of it")] = ()
    stop_token_ids: Annotated[tuple[int, ...], Meta(description="token id that ends the answer")] = ()
    include_stop_str_in_output: Annotated[bool, Meta(description="keep the stop text")] = False
    ignore_eos: Annotated[bool, Meta(description="go on after the end of sequence")] = False
    logprobs: int | None = None  # None: off; k: the sampled token's and the k most likely tokens' log-probabilities
    skip_special_tokens: Annotated[bool, Meta(description="leave special tokens out of the text")] = True


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities (natural, of the model's distribution before temperature and truncation) at one position."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token_id, logprob), most likely first


class ServiceClass(msgspec.Struct, frozen=True, kw_only=True):
    """SLOs of the requests of one kind; None: no such target. Read by ``octavo.scheduler.classes``."""

    name: str = "default"
    ttft_s: float | None = None  # arrival to first token
    tpot_s: float | None = None  # (last token - first token) / (tokens - 1)
    max_wait_s: float | None = None  # the longest time without service, before the first or after a preemption
    weight: float = 1.0  # how much more of the machine a tenant's work of this class may claim
    when_full: str = "admit"  # a request whose SLO cannot be attained: "admit" all the same, "refuse", or "degrade"


DEFAULT_CLASS = ServiceClass()


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request on its way into the engine."""

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    arrival_s: float
    priority: int = 0  # lower runs first (vLLM's convention)
    tenant: str = ""  # whose prefix cache it may share, whose fair share it uses
    service_class: str = ""  # name of its service class; "": the default one


class RequestTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Where one request's time went; all are durations in seconds, None while unknown."""

    queue_s: float | None = None  # arrival to first scheduled
    ttft_s: float | None = None  # arrival to first token
    tpot_s: float | None = None  # (last token - first token) / (tokens - 1)
    e2e_s: float | None = None  # arrival to end
    num_preemptions: int = 0


class TokenEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one step did for one request: new tokens, or the end, or both. Terminal if ``finish_reason`` is set."""

    request_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None  # one per token id, if asked for
    time_s: float = 0.0  # when the step that made it was committed
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None  # the stop token id that ended it (None for end-of-sequence)
    error: str | None = None  # with FinishReason.ERROR: what happened
    num_cached_tokens: int = 0  # prompt tokens served from the prefix cache
    timings: RequestTimings | None = None  # on the first and the terminal event


@dataclass(slots=True)
class Request:
    """A request inside the engine. Owned and mutated by the scheduler alone; executors know what plans tell them of it.

    ``token_ids`` is prompt + output: the tokens known. ``num_computed_tokens`` of them have keys and values in the KV
    cache. There is no prefill or decode phase: a plan computes some more tokens, and when it computes the last of them, a
    new token is sampled. A step may be planned while others are in flight: then the token that it computes may be one that
    they are about to sample.
    """

    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    max_tokens: int  # resolved: never None
    stop_ids: frozenset[int]  # token ids that end it: params.stop_token_ids and, unless ignore_eos, the model's own
    arrival_s: float
    priority: int = 0
    tenant: str = ""
    service_class: ServiceClass = DEFAULT_CLASS
    sequence_number: int = 0  # order of arrival inside the scheduler: breaks ties, keeps seniority
    waiting_since_s: float = 0.0  # when it last began to wait: its arrival in the queue, or a preemption
    num_computed_tokens: int = 0
    num_planned_tokens: int = 0  # computed, or being computed by a step in flight
    is_drafting: bool = False  # a step in flight verifies drafts: how many tokens it makes is not known yet
    num_sent_blocks: int = 0  # of its block table, so many are known to the executor; 0: it does not know the request
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    first_scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_expected_tokens(self) -> int:
        """Known, or about to be sampled by the steps in flight."""
        return max(len(self.token_ids), self.num_planned_tokens + 1)

    @property
    def is_in_flight(self) -> bool:
        """A step that is not committed yet computes tokens of it."""
        return self.num_planned_tokens > self.num_computed_tokens


class NewRequest(NamedTuple):
    """What an executor must know of a request before it computes anything of it."""

    token_ids: tuple[int, ...]  # all that are known: the prompt and, after a preemption, the output so far
    num_prompt_tokens: int
    params: SamplingParams
    max_tokens: int
    stop_ids: frozenset[int]


class PlannedRequest(NamedTuple):
    """One request's share of a step, complete in itself. A tuple because hundreds are made in every step.

    Token ids are sent once, with ``new``: what comes later the executor has sampled itself.
    """

    request_id: str
    start: int  # position of the first token computed in this step (= tokens computed before it)
    num_tokens: int  # how many tokens are computed
    samples: bool  # the last one known, or about to be sampled, is among them: the step yields a new one
    new_block_ids: tuple[int, ...] = ()  # appended to its block table, which then covers all that the step writes
    num_draft_tokens: int = 0  # so many drafted tokens may be computed behind the last one
    new: NewRequest | None = None  # at first sight, and again after a preemption


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step computes. The scheduler's only output and the executor's only input: a message, no live objects."""

    step: int
    requests: tuple[PlannedRequest, ...]
    num_tokens: int = 0
    preempted: tuple[str, ...] = ()  # ids preempted while planning; for metrics
    forgotten: tuple[str, ...] = ()  # ids that ended or were preempted since the plan before: state of them can go


@dataclass(frozen=True, slots=True)
class Sample:
    """What a step made for one request that samples: normally one token, more under speculation, none on error."""

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None = None
    error: str | None = None  # this request alone failed
    num_computed: int = 0  # of token_ids, from the first on: keys and values are in the cache already (speculation)


@dataclass(frozen=True, slots=True)
class StepResult:
    """Samples by request id and the step's measured duration.

    One for each planned request with ``samples``, and one that carries an ``error`` for any other that failed: what it
    was to write into its blocks may be missing.
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    step_time_s: float = 0.0
    num_draft_tokens: int = 0  # tokens that speculation proposed in this step ...
    num_accepted_tokens: int = 0  # ... and how many of them were right


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot after a step. ``total_*`` count since the engine started."""

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_blocks_used: int = 0  # referenced by a request; cached but free blocks do not count
    total_steps: int = 0
    total_preemptions: int = 0
    total_prompt_tokens: int = 0  # prompt tokens computed or found in the cache, of requests that were scheduled
    total_prefix_query_tokens: int = 0
    total_prefix_hit_tokens: int = 0
    total_draft_tokens: int = 0
    total_accepted_tokens: int = 0
    step_time_s: float = 0.0  # duration of this step's executor run
    step_num_tokens: int = 0
    step_num_requests: int = 0
    step_time_error: float = 0.0  # of the step-time forecast: moving mean of |forecast - measured| / measured


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a ready engine tells the server about itself."""

    model: str
    vocab_size: int
    max_model_len: int
    block_size: int
    num_blocks: int
    dtype: str = ""
    kv_dtype: str = ""
    device: str = "cpu"
    weight_bytes: int = 0
    kv_cache_bytes: int = 0
    load_s: float = 0.0

    @property
    def max_request_tokens(self) -> int:
        """The longest prompt + output that can ever run: the context, or all blocks of the KV cache."""
        return min(self.max_model_len, self.num_blocks * self.block_size)


class DraftLimits(NamedTuple):
    """How far an executor speculates: ``num_tokens`` drafts for a request, as long as a step has at most ``max_rows`` rows."""

    num_tokens: int = 0
    max_rows: int = 0


class Step(Protocol):
    """A launched plan."""

    def result(self) -> StepResult:
        """Waits until it is computed. Raises what made the whole step fail; after that the executor cannot be used."""
        ...


class Executor(Protocol):
    """Computes plans in the order of their launch. Shipped: ``native``, ``cpu`` and ``cuda`` (torch), and ``fake``."""

    @property
    def max_in_flight(self) -> int:
        """How many steps may be launched and not committed; 1: a step is done when ``launch`` returns."""
        ...

    @property
    def draft_limits(self) -> DraftLimits: ...

    def launch(self, plan: Plan) -> Step:
        """Write the keys and values of every planned token, sample where ``samples`` is set."""
        ...

    def close(self) -> None: ...


class Clock(Protocol):
    """Monotonic seconds; the simulator's is virtual."""

    def now(self) -> float: ...


class EngineClient(Protocol):
    """The engine as the server sees it: in this process (tests, library) or in one of its own (``octavo serve``)."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def stats(self) -> EngineStats:
        """The newest snapshot received."""
        ...

    @property
    def num_pending(self) -> int:
        """Requests submitted that have not ended."""
        ...

    def generate(self, submission: Submission) -> AsyncIterator[TokenEvent]:
        """Submit, then yield events up to and including the terminal one; closing the iterator aborts the request.

        Raises ``EngineDeadError`` if no engine can take it. An engine that dies later ends it with one terminal event of
        ``FinishReason.ERROR``.
        """
        ...

    def unhealthy_reason(self) -> str | None:
        """None while healthy; else why not: work is pending and no step has finished for a while, or no engine."""
        ...
