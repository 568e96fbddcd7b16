"""Requests of POST /v1/completions: the typed body, its prompts as token ids, the job they become."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from octavo.config import ServerConfig
from octavo.errors import InvalidRequestError, UnsupportedParameterError
from octavo.server.generation import Job, Prompts, Sender, make_job
from octavo.server.http.body import BodySchema
from octavo.server.openai.parameters import UNTYPED
from octavo.server.openai.sampling import (
    GenerationRequest,
    TokenId,
    check_cap,
    check_token_ids,
    sampling_params,
    sender_of,
)
from octavo.server.prompts import check_prompt_fits, encode_prompts
from octavo.server.state import ServedModel

DEFAULT_MAX_TOKENS = 16  # OpenAI's and vLLM's


class CompletionRequest(GenerationRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/completions."""

    prompt: Annotated[
        str | list[str | TokenId | list[TokenId]],
        Meta(description="text, token ids, or a list of either (never mixed)"),
    ]
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, description="only a value equal to n")] | None = None
    logprobs: Annotated[int, Meta(ge=0)] | None = None


COMPLETION_SCHEMA = BodySchema(CompletionRequest, UNTYPED)


async def completion_job(body: CompletionRequest, model: ServedModel, config: ServerConfig, sender: Sender) -> Job:
    """The checked request. Raises ``InvalidRequestError`` naming field, value and limit, or ``ContextLengthError``."""
    info, n = model.client.info, body.n or 1
    if body.best_of is not None and body.best_of != n:
        raise UnsupportedParameterError(f"best_of: {body.best_of}, only n = {n} is supported", param="best_of")
    if body.logprobs is not None:
        check_cap("logprobs", body.logprobs, config.max_logprobs)
        if body.echo:
            raise UnsupportedParameterError("echo: not together with logprobs yet", param="echo")
    params = sampling_params(body, config, info, default_max_tokens=DEFAULT_MAX_TOKENS, logprobs=body.logprobs)
    texts = split_prompts(body.prompt)
    check_cap("prompt", len(texts), config.max_prompts, " prompts")
    token_ids = await encode_prompts(texts, model.tokenizer, add_special_tokens=body.add_special_tokens is not False)
    for i, prompt in enumerate(token_ids):
        name = "prompt" if len(token_ids) == 1 else f"prompt[{i}]"
        check_token_ids(prompt, info, name)
        check_prompt_fits(prompt, params.max_tokens, info, name)
    return make_job(f"cmpl-{uuid.uuid4().hex}", model, sender_of(body, sender), Prompts(token_ids, n), params)


def split_prompts(prompt: str | Sequence[str | int | list[int]]) -> list[str | list[int]]:
    """The four shapes of ``prompt`` as a list of single prompts. Raises ``InvalidRequestError`` for a mixture."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidRequestError("prompt: an empty array; expected text or token ids", param="prompt")
    kinds = {type(item) for item in prompt}
    if kinds == {int}:
        return [[item for item in prompt if isinstance(item, int)]]
    if len(kinds) > 1:
        raise InvalidRequestError(
            "prompt: text, token ids and arrays mixed; expected only one of them in the array", param="prompt"
        )
    return [item for item in prompt if not isinstance(item, int)]
