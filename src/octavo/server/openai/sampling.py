"""Sampling fields that completions and chat completions share, and the engine's parameters from them.

The classes of the bodies both validate and describe. ``null`` means "not given" for every field. Caps that an operator sets
(``ServerConfig``) are applied here, after the types. Fields beyond OpenAI's are named as vLLM names them.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from octavo.config import ServerConfig
from octavo.errors import InvalidRequestError
from octavo.server.generation import Sender
from octavo.server.http.body import show
from octavo.types import EngineInfo, SamplingParams

T = TypeVar("T", int, float, bool)

MAX_LOGIT_BIAS = 100.0  # OpenAI's bound

Temperature = Annotated[float, Meta(ge=0, le=2, description="0 is greedy")]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
TokenCount = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Name = Annotated[str, Meta(max_length=1024)]


class StreamOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # no effect: nothing is padded here


class GenerationRequest(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What completions and chat completions share."""

    model: Annotated[Name, Meta(description="a name from /v1/models; absent: the served one")] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: TokenCount | None = None
    max_completion_tokens: Annotated[TokenCount, Meta(description="another name of max_tokens")] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1, description="0 or -1: off")] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    logit_bias: Annotated[dict[str, float], Meta(description="token id -> -100..100")] | None = None
    seed: Int64 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = None
    add_special_tokens: bool | None = None
    priority: Annotated[Int32, Meta(description="lower runs first, under --policy priority")] | None = None
    service_class: (
        Annotated[Name, Meta(description="a class of --classes, whose targets (SLO) it gets; absent: the default")]
        | None
    ) = None


def check_cap(name: str, value: int, cap: int, what: str = "") -> None:
    """Raise ``InvalidRequestError`` if ``value`` is beyond an operator's ``cap``."""
    if value > cap:
        raise InvalidRequestError(f"{name}: {value}{what}, at most {cap}", param=name)


def check_token_ids(token_ids: list[int], info: EngineInfo, param: str) -> None:
    """Raise ``InvalidRequestError`` if an id is outside the vocabulary."""
    if token_ids and max(token_ids) >= info.vocab_size:
        index = next(i for i, token_id in enumerate(token_ids) if token_id >= info.vocab_size)
        raise InvalidRequestError(
            f"{param}[{index}]: token id {token_ids[index]}, at most {info.vocab_size - 1}", param=param
        )


def sampling_params(
    body: GenerationRequest,
    config: ServerConfig,
    info: EngineInfo,
    *,
    default_max_tokens: int | None,
    logprobs: int | None,
) -> SamplingParams:
    """The engine's parameters for one choice; raises ``InvalidRequestError`` naming field, value and limit."""
    check_cap("n", body.n or 1, config.max_n)
    max_tokens = _max_tokens(body, default_max_tokens)
    min_tokens = body.min_tokens or 0
    if max_tokens is not None and min_tokens > max_tokens:
        raise InvalidRequestError(f"min_tokens: {min_tokens}, at most max_tokens = {max_tokens}", param="min_tokens")
    if body.stream_options is not None and not body.stream:
        raise InvalidRequestError("stream_options: only with stream = true", param="stream_options")
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=_or(body.temperature, 1.0),
        top_k=_or(body.top_k, 0),
        top_p=_or(body.top_p, 1.0),
        min_p=_or(body.min_p, 0.0),
        presence_penalty=_or(body.presence_penalty, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        logit_bias=_logit_bias(body.logit_bias, config, info),
        seed=body.seed,
        stop=_stop(body.stop, config),
        stop_token_ids=_stop_token_ids(body.stop_token_ids, config, info),
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
        skip_special_tokens=_or(body.skip_special_tokens, True),
    )


def sender_of(body: GenerationRequest, sender: Sender) -> Sender:
    """The sender with what the body says of how its request is to run."""
    return Sender(sender.tenant, sender.arrival_s, body.priority or 0, body.service_class or "")


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _max_tokens(body: GenerationRequest, default: int | None) -> int | None:
    if body.max_tokens and body.max_completion_tokens and body.max_tokens != body.max_completion_tokens:
        raise InvalidRequestError(
            f"max_completion_tokens: {body.max_completion_tokens}, but max_tokens is {body.max_tokens}; send one of them",
            param="max_completion_tokens",
        )
    return body.max_completion_tokens or body.max_tokens or default


def _stop(stop: str | list[str] | None, config: ServerConfig) -> tuple[str, ...]:
    strings = [stop] if isinstance(stop, str) else stop or []
    check_cap("stop", len(strings), config.max_stop, " strings")
    for i, text in enumerate(strings):
        if not text:
            raise InvalidRequestError(f"stop[{i}]: empty; a stop string has at least one character", param="stop")
        check_cap(f"stop[{i}]", len(text), config.max_stop_chars, " characters")
    return tuple(strings)


def _stop_token_ids(token_ids: list[int] | None, config: ServerConfig, info: EngineInfo) -> tuple[int, ...]:
    check_cap("stop_token_ids", len(token_ids or []), config.max_stop, " ids")
    check_token_ids(token_ids or [], info, "stop_token_ids")
    return tuple(token_ids or ())


def _logit_bias(bias: dict[str, float] | None, config: ServerConfig, info: EngineInfo) -> dict[int, float] | None:
    if not bias:
        return None
    check_cap("logit_bias", len(bias), config.max_logit_bias, " entries")
    result: dict[int, float] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) < 12 and int(key) < info.vocab_size):
            raise InvalidRequestError(
                f"logit_bias: key {show(key)}, expected a token id of 0..{info.vocab_size - 1}", param="logit_bias"
            )
        if not -MAX_LOGIT_BIAS <= value <= MAX_LOGIT_BIAS:  # also refuses NaN
            raise InvalidRequestError(f"logit_bias[{key}]: {value}, expected -100..100", param="logit_bias")
        result[int(key)] = value
    return result
