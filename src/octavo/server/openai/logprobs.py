"""Log-probabilities in OpenAI's two shapes: of /v1/completions and of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from octavo.text.response import DecodedLogprobs, DecodedToken

# JSON has no infinity; a token that a mask has ruled out gets the lowest value that clients know from OpenAI.
LOWEST = -9999.0


class CompletionLogprobs(msgspec.Struct, kw_only=True, frozen=True):
    """Of /v1/completions: parallel lists, one entry per token."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float]]


class TopLogprob(msgspec.Struct, kw_only=True, frozen=True):
    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(msgspec.Struct, kw_only=True, frozen=True):
    """Of one token of a chat completion."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, kw_only=True, frozen=True):
    content: list[ContentLogprob]
    refusal: None = None


def completion_logprobs(
    entries: Iterable[DecodedLogprobs], token_texts: Iterable[str], offset: int
) -> CompletionLogprobs:
    """``token_texts`` is what each token added to the text, ``offset`` where the first one begins."""
    result = CompletionLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
    for entry, added in zip(entries, token_texts, strict=True):
        text, logprob = entry.token.text, _finite(entry.token)
        top = {one.text: _finite(one) for one in entry.top}
        top.setdefault(text, logprob)
        result.text_offset.append(offset)
        result.token_logprobs.append(logprob)
        result.tokens.append(text)
        result.top_logprobs.append(top)
        offset += len(added)
    return result


def chat_logprobs(entries: Iterable[DecodedLogprobs]) -> ChatLogprobs:
    """Of one or more tokens, in the shape of /v1/chat/completions."""
    content: list[ContentLogprob] = []
    for entry in entries:
        token = entry.token
        top = [TopLogprob(token=one.text, logprob=_finite(one), bytes=list(one.data)) for one in entry.top]
        content.append(
            ContentLogprob(token=token.text, logprob=_finite(token), bytes=list(token.data), top_logprobs=top)
        )
    return ChatLogprobs(content=content)


def _finite(token: DecodedToken) -> float:
    return token.logprob if token.logprob > LOWEST else LOWEST
