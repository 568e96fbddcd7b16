"""Can this request be honoured? Its sampling parameters within the caps, its prompt within the context and the KV cache."""

from __future__ import annotations

import math
from typing import TypeVar

from octavo.config import ServerConfig
from octavo.errors import ContextLengthError, InvalidRequestError
from octavo.server.parsing import show
from octavo.server.requests import GenerationRequest
from octavo.types import EngineInfo, SamplingParams

T = TypeVar("T", int, float, bool)

MAX_LOGIT_BIAS = 100.0  # OpenAI's bound


def check_cap(name: str, value: int, cap: int, what: str = "") -> None:
    """Raise ``InvalidRequestError`` if ``value`` is beyond an operator's ``cap``."""
    if value > cap:
        raise InvalidRequestError(f"{name}: {value}{what}, at most {cap}", param=name)


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


def check_fits(num_prompt_tokens: int, max_tokens: int | None, info: EngineInfo, param: str) -> None:
    """Raise ``ContextLengthError`` with the allocator's own arithmetic if the request can never run.

    ``max_tokens`` None asks for whatever is left, which must be at least one token.
    """
    if num_prompt_tokens == 0:
        raise InvalidRequestError(f"{param}: empty; at least one token is needed", param=param)
    num_output = max_tokens or 1
    total = num_prompt_tokens + num_output
    if total <= info.max_request_tokens:
        return
    asked = f"{num_prompt_tokens} prompt tokens + {num_output} output tokens = {total}"
    if total > info.max_model_len:
        limit = f"the context of {info.model} is {info.max_model_len} tokens"
    else:
        needed = math.ceil(total / info.block_size)
        limit = f"they need ceil({total} / {info.block_size}) = {needed} KV blocks, the cache has {info.num_blocks}"
    hint = "shorten the prompt or lower max_tokens" if max_tokens else "shorten the prompt"
    raise ContextLengthError(f"{param}: {asked}, but {limit}; {hint}", param=param)


def check_token_ids(token_ids: list[int], info: EngineInfo, param: str) -> None:
    """Raise ``InvalidRequestError`` if an id is outside the vocabulary."""
    if token_ids and max(token_ids) >= info.vocab_size:
        index = next(i for i, token_id in enumerate(token_ids) if token_id >= info.vocab_size)
        raise InvalidRequestError(
            f"{param}[{index}]: token id {token_ids[index]}, at most {info.vocab_size - 1}", param=param
        )


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
