"""Prompts as token ids: encoding and chat templates, off the event loop once they are long; the check that they fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from octavo.errors import InvalidRequestError
from octavo.kvcache.fit import check_fits
from octavo.text.tokenizer import Tokenizer
from octavo.types import EngineInfo

T = TypeVar("T")

INLINE_CHARS = 4096  # encoding this much takes well under a millisecond; more goes to a thread
_MESSAGE_CHARS = 64  # what rendering an empty message costs, in characters of text


async def off_loop(num_chars: int, work: Callable[[], T]) -> T:
    """``work()``, in a thread if ``num_chars`` of text make it slow enough to be felt by the other requests."""
    return work() if num_chars <= INLINE_CHARS else await asyncio.to_thread(work)


async def encode_prompts(
    prompts: Sequence[str | list[int]], tokenizer: Tokenizer, *, add_special_tokens: bool
) -> list[list[int]]:
    """Token ids of every prompt; those that are ids already stay as they are."""

    def encode_all() -> list[list[int]]:
        return [tokenizer.encode(p, add_special_tokens) if isinstance(p, str) else p for p in prompts]

    return await off_loop(sum(len(p) for p in prompts if isinstance(p, str)), encode_all)


async def encode_chat(
    messages: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    *,
    add_generation_prompt: bool,
    add_special_tokens: bool,
    variables: Mapping[str, Any],
) -> list[int]:
    """Token ids of the prompt that the model's own chat template makes. The template writes the special tokens."""

    def render_and_encode() -> list[int]:
        text = tokenizer.render_chat(messages, add_generation_prompt=add_generation_prompt, variables=variables)
        return tokenizer.encode(text, add_special_tokens)

    num_chars = sum(_MESSAGE_CHARS + len(message["content"]) for message in messages)
    return await off_loop(num_chars, render_and_encode)


def check_prompt_fits(token_ids: Sequence[int], max_tokens: int | None, info: EngineInfo, param: str) -> None:
    """Raise ``InvalidRequestError`` for an empty prompt, ``ContextLengthError`` for one that can never run.

    ``max_tokens`` None asks for whatever is left of the context.
    """
    if not token_ids:
        raise InvalidRequestError(f"{param}: empty; at least one token is needed", param=param)
    check_fits(len(token_ids), max_tokens, info, param)
