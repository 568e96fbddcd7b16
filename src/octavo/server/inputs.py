"""What is to be continued? Prompts and messages to token ids, off the event loop once they are long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from octavo.errors import InvalidRequestError, UnsupportedParameterError
from octavo.server.limits import check_cap, check_fits, check_token_ids
from octavo.server.parsing import show
from octavo.server.requests import ChatMessage, CompletionRequest, ContentPart
from octavo.text.tokenizer import Tokenizer
from octavo.types import EngineInfo

T = TypeVar("T")

INLINE_CHARS = 4096  # encoding this much takes well under a millisecond; more goes to a thread
_MESSAGE_CHARS = 64  # what rendering an empty message costs, in characters of text

# Names that a template's own machinery uses; a client must not replace them.
RESERVED_VARIABLES = frozenset(
    [
        "self",
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "raise_exception",
        "strftime_now",
        "range",
        "loop",
        "chat_template",
    ]
)
# Fields of a message that carry what no text-only model can see.
_TOOL_FIELDS = ("tool_calls", "function_call", "audio", "tool_call_id")


async def off_loop(num_chars: int, work: Callable[[], T]) -> T:
    """``work()``, in a thread if ``num_chars`` of text make it slow enough to be felt by the other requests."""
    return work() if num_chars <= INLINE_CHARS else await asyncio.to_thread(work)


def split_prompts(prompt: str | Sequence[str | int | list[int]], max_prompts: int) -> list[str | list[int]]:
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
    check_cap("prompt", len(prompt), max_prompts, " prompts")
    return [item for item in prompt if not isinstance(item, int)]


async def encode_prompts(
    body: CompletionRequest, prompts: Sequence[str | list[int]], tokenizer: Tokenizer, info: EngineInfo
) -> list[list[int]]:
    """Token ids of every prompt, inside the vocabulary."""
    add_special = True if body.add_special_tokens is None else body.add_special_tokens

    def encode_all() -> list[list[int]]:
        return [tokenizer.encode(p, add_special) if isinstance(p, str) else p for p in prompts]

    result = await off_loop(sum(len(p) for p in prompts if isinstance(p, str)), encode_all)
    for i, token_ids in enumerate(result):
        check_token_ids(token_ids, info, "prompt" if len(result) == 1 else f"prompt[{i}]")
    return result


def check_prompts_fit(prompts: Sequence[list[int]], max_tokens: int | None, info: EngineInfo) -> None:
    for i, token_ids in enumerate(prompts):
        check_fits(len(token_ids), max_tokens, info, "prompt" if len(prompts) == 1 else f"prompt[{i}]")


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Messages as a chat template takes them: plain text. Raises ``UnsupportedParameterError`` for anything else."""
    result: list[dict[str, str]] = []
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if message.role in ("tool", "function"):
            raise UnsupportedParameterError(f"{where}.role: {message.role!r}; tools are not supported yet", param=where)
        for name in _TOOL_FIELDS:
            if getattr(message, name):
                raise UnsupportedParameterError(f"{where}.{name}: not supported by this server yet", param=where)
        role = "system" if message.role == "developer" else message.role
        plain = {"role": role, "content": _content(message, where)}
        if message.name:
            plain["name"] = message.name
        result.append(plain)
    return result


def _content(message: ChatMessage, where: str) -> str:
    content = message.content
    if content is None:
        if message.role == "assistant":
            return message.refusal or ""
        raise InvalidRequestError(f"{where}.content: missing; expected text", param=f"{where}.content")
    if isinstance(content, str):
        return content
    return "\n".join(_part(part, f"{where}.content[{k}]") for k, part in enumerate(content))


def _part(part: ContentPart, where: str) -> str:
    if part.type not in ("text", "input_text", "output_text"):
        hint = "; images are not supported by this model" if "image" in part.type else ""
        raise UnsupportedParameterError(f'{where}.type: {show(part.type)}, expected "text"{hint}', param=where)
    if part.text is None:
        raise InvalidRequestError(f"{where}.text: missing", param=where)
    return part.text


async def encode_chat(
    messages: Sequence[ChatMessage],
    tokenizer: Tokenizer,
    *,
    add_generation_prompt: bool,
    add_special_tokens: bool,
    variables: dict[str, Any],
) -> list[int]:
    """Token ids of the prompt that the model's own chat template makes. The template writes the special tokens."""
    plain = template_messages(messages)
    for name in variables:
        if name in RESERVED_VARIABLES or not name.isidentifier():
            raise InvalidRequestError(
                f"chat_template_kwargs: {show(name)} is no variable that a client can set", param="chat_template_kwargs"
            )

    def render_and_encode() -> list[int]:
        try:
            text = tokenizer.render_chat(plain, add_generation_prompt=add_generation_prompt, **variables)
        except RecursionError:
            raise InvalidRequestError("chat_template_kwargs: nested too deeply", param="chat_template_kwargs") from None
        return tokenizer.encode(text, add_special_tokens)

    num_chars = sum(_MESSAGE_CHARS + len(message["content"]) for message in plain)
    return await off_loop(num_chars, render_and_encode)
