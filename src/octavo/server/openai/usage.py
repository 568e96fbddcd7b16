"""Token usage in OpenAI's shape, and the ends of an OpenAI stream."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from octavo.errors import OctavoError
from octavo.server.generation import Job
from octavo.server.http.responses import error_body, sse_event

DONE = b"data: [DONE]\n\n"


class PromptTokensDetails(msgspec.Struct, kw_only=True, frozen=True):
    cached_tokens: Annotated[int, Meta(description="prompt tokens served from the prefix cache")]


class Usage(msgspec.Struct, kw_only=True, frozen=True):
    """Tokens of the whole HTTP request; each prompt counts once, however many choices share it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def usage_of(job: Job) -> Usage:
    """What the job has used so far."""
    return Usage(
        prompt_tokens=job.num_prompt_tokens,
        completion_tokens=job.num_output_tokens,
        total_tokens=job.num_prompt_tokens + job.num_output_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=job.num_cached_tokens),
    )


def stream_error(error: OctavoError) -> bytes:
    """How a stream ends that fails after its first chunk."""
    return sse_event(error_body(error)) + DONE
