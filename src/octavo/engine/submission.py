"""Validation of a ``Submission`` (token ids, ranges, context length) and its completion into a ``Request``."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from octavo.errors import InvalidRequestError
from octavo.kvcache.fit import check_fits
from octavo.scheduler.classes import ServiceClasses
from octavo.types import EngineInfo, Request, SamplingParams, Submission


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What a request is completed with."""

    eos_token_ids: frozenset[int] = frozenset()  # end a sequence unless ignore_eos
    seed: int = 0  # from which requests without a seed get theirs
    classes: ServiceClasses = dataclasses.field(default_factory=ServiceClasses)


def complete(submission: Submission, info: EngineInfo, defaults: RequestDefaults) -> Request:
    """The checked request. Raises ``InvalidRequestError`` naming field, value and limit, or ``ContextLengthError``."""
    prompt, params = submission.prompt_token_ids, submission.params
    if not prompt:
        raise InvalidRequestError("the prompt has no tokens; send at least one", param="prompt")
    _check_ids("prompt", (min(prompt), max(prompt)), info)
    _check_ids("logit_bias", params.logit_bias or (), info)
    _check_ids("stop_token_ids", params.stop_token_ids, info)
    max_tokens = params.max_tokens if params.max_tokens is not None else max(1, info.max_request_tokens - len(prompt))
    check_fits(len(prompt), max_tokens, info)
    _check_ranges(params, max_tokens, info)
    if params.seed is None:
        params = msgspec.structs.replace(params, seed=_derived_seed(defaults.seed, submission.request_id))
    return Request(
        request_id=submission.request_id,
        token_ids=list(prompt),
        num_prompt_tokens=len(prompt),
        params=params,
        max_tokens=max_tokens,
        stop_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else defaults.eos_token_ids),
        arrival_s=submission.arrival_s,
        priority=submission.priority,
        tenant=submission.tenant,
        service_class=defaults.classes.find(submission.service_class),
    )


def _check_ids(field: str, token_ids: Iterable[int], info: EngineInfo) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < info.vocab_size:
            raise InvalidRequestError(
                f"{field}: token id {token_id} is outside the vocabulary 0..{info.vocab_size - 1}", param=field
            )


def _check_ranges(params: SamplingParams, max_tokens: int, info: EngineInfo) -> None:
    """Comparisons with NaN are false, so every range also refuses it."""
    finite = math.inf
    for field, value, low, high in (
        ("max_tokens", max_tokens, 1, finite),
        ("min_tokens", params.min_tokens, 0, max_tokens),
        ("temperature", params.temperature, 0.0, 100.0),
        ("top_k", params.top_k, -1, finite),
        ("top_p", params.top_p, 1e-9, 1.0),
        ("min_p", params.min_p, 0.0, 1.0),
        ("presence_penalty", params.presence_penalty, -100.0, 100.0),
        ("frequency_penalty", params.frequency_penalty, -100.0, 100.0),
        ("repetition_penalty", params.repetition_penalty, 1e-3, 1e3),
        ("logprobs", 0 if params.logprobs is None else params.logprobs, 0, info.vocab_size),
    ):
        if not low <= value <= high:
            raise InvalidRequestError(f"{field} = {value}: expected {low:g} to {high:g}", param=field)
    for token_id, bias in (params.logit_bias or {}).items():
        if not math.isfinite(bias):
            raise InvalidRequestError(f"logit_bias[{token_id}] = {bias}: expected a finite number", param="logit_bias")


def _derived_seed(seed: int, request_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{request_id}".encode()).digest()[:7], "big")
