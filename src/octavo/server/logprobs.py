"""How are log-probabilities written? In the two shapes that OpenAI has for them."""

from __future__ import annotations

from collections.abc import Iterable

from octavo.server.answers import ChatLogprobs, CompletionLogprobs, ContentLogprob, TopLogprob
from octavo.text.tokenizer import Tokenizer
from octavo.types import TokenLogprobs

# JSON has no infinity; a token that a mask has ruled out gets the lowest value that clients know from OpenAI.
LOWEST = -9999.0


def token_string(token: bytes) -> str:
    """A token as text; one that is no UTF-8 by itself as OpenAI writes it: ``bytes:\\xe2\\x80``."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def completion_logprobs(
    tokenizer: Tokenizer, entries: Iterable[TokenLogprobs], token_texts: Iterable[str], offset: int
) -> CompletionLogprobs:
    """For /v1/completions; ``token_texts`` is what each token added to the text, ``offset`` where the first one begins."""
    result = CompletionLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
    for entry, added in zip(entries, token_texts, strict=True):
        text = token_string(tokenizer.token_bytes(entry.token_id))
        top = {token_string(tokenizer.token_bytes(token_id)): _finite(value) for token_id, value in entry.top}
        top.setdefault(text, _finite(entry.logprob))
        result.text_offset.append(offset)
        result.token_logprobs.append(_finite(entry.logprob))
        result.tokens.append(text)
        result.top_logprobs.append(top)
        offset += len(added)
    return result


def chat_logprobs(tokenizer: Tokenizer, entries: Iterable[TokenLogprobs]) -> ChatLogprobs:
    """For /v1/chat/completions."""
    content: list[ContentLogprob] = []
    for entry in entries:
        token = tokenizer.token_bytes(entry.token_id)
        top: list[TopLogprob] = []
        for token_id, value in entry.top:
            other = tokenizer.token_bytes(token_id)
            top.append(TopLogprob(token=token_string(other), logprob=_finite(value), bytes=list(other)))
        content.append(
            ContentLogprob(
                token=token_string(token), logprob=_finite(entry.logprob), bytes=list(token), top_logprobs=top
            )
        )
    return ChatLogprobs(content=content)


def _finite(value: float) -> float:
    return value if value > LOWEST else LOWEST
