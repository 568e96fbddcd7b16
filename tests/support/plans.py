"""Plans and rows written by hand, for tests of executors without a scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.executor.requests import RequestState, Row
from octavo.types import NewRequest, Plan, PlannedRequest, SamplingParams


def new_request(
    name: str,
    tokens: Sequence[int],
    num_prompt: int | None = None,
    stop_ids: frozenset[int] = frozenset(),
    max_tokens: int = 1000,
    **params: object,
) -> RequestState:
    """Without blocks; ``params`` are sampling parameters."""
    num_prompt_tokens = len(tokens) if num_prompt is None else num_prompt
    return RequestState(name, list(tokens), num_prompt_tokens, SamplingParams(**params), max_tokens, stop_ids)  # type: ignore[arg-type]


def introduce(
    request: RequestState, start: int, num_tokens: int, blocks: Sequence[int], samples: bool, num_draft_tokens: int = 0
) -> PlannedRequest:
    """A share that says all about the request, as at first sight."""
    new = NewRequest(
        tuple(request.token_ids), request.num_prompt_tokens, request.params, request.max_tokens, request.stop_ids
    )
    return PlannedRequest(request.request_id, start, num_tokens, samples, tuple(blocks), num_draft_tokens, new)


def plan_of(*planned: PlannedRequest) -> Plan:
    return Plan(step=0, requests=planned, num_tokens=sum(one.num_tokens for one in planned))


def row(request: RequestState, start: int, num_tokens: int, blocks: Sequence[int], samples: bool = True) -> Row:
    """``blocks`` become the request's block table."""
    request.block_ids = list(blocks)
    return Row(request, start, num_tokens, samples)
