"""Requests of POST /v1/chat/completions: the typed body, its messages as the chat template takes them, the job they become."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from octavo.config import ServerConfig
from octavo.errors import InvalidRequestError, UnsupportedParameterError
from octavo.server.generation import Job, Prompts, Sender, make_job
from octavo.server.http.body import BodySchema
from octavo.server.openai.parameters import UNTYPED
from octavo.server.openai.sampling import GenerationRequest, Name, check_cap, sampling_params, sender_of
from octavo.server.prompts import check_prompt_fits, encode_chat
from octavo.server.state import ServedModel
from octavo.text.chat_template import flatten_content

# Fields of a message that carry what no text-only model can see.
_TOOL_FIELDS = ("tool_calls", "function_call", "audio", "tool_call_id")


class ContentPart(msgspec.Struct, kw_only=True, frozen=True):
    """One part of a message. Only ``text`` is understood; other parts are refused by their type's name."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One message of a conversation, with every field that OpenAI's clients send; not all are honoured."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: Name | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None  # no effect: what a client copies from a response of ours or OpenAI's
    audio: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


Messages = Annotated[list[ChatMessage], Meta(min_length=1, max_length=65536)]
TemplateArguments = Annotated[dict[str, Any], Meta(description="variables for the model's own chat template")]


class ChatCompletionRequest(GenerationRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/chat/completions."""

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0)] | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: TemplateArguments | None = None


CHAT_SCHEMA = BodySchema(ChatCompletionRequest, UNTYPED)


async def chat_job(body: ChatCompletionRequest, model: ServedModel, config: ServerConfig, sender: Sender) -> Job:
    """The checked request. Raises ``InvalidRequestError`` naming field, value and limit, or ``ContextLengthError``."""
    info = model.client.info
    logprobs = _num_logprobs(body, config)
    params = sampling_params(body, config, info, default_max_tokens=None, logprobs=logprobs)
    sender = sender_of(body, sender)
    token_ids = await encode_chat(
        template_messages(body.messages),
        model.tokenizer,
        add_generation_prompt=body.add_generation_prompt is not False,
        add_special_tokens=bool(body.add_special_tokens),
        variables=body.chat_template_kwargs or {},
    )
    check_prompt_fits(token_ids, params.max_tokens, info, "messages")
    prompts = Prompts([token_ids], body.n or 1)
    return make_job(f"chatcmpl-{uuid.uuid4().hex}", model, sender, prompts, params)


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
        plain = {"role": role, "content": _content(message, f"{where}.content")}
        if message.name:
            plain["name"] = message.name
        result.append(plain)
    return result


def _content(message: ChatMessage, where: str) -> str:
    content = message.content
    if content is None:
        if message.role == "assistant":
            return message.refusal or ""
        raise InvalidRequestError(f"{where}: missing; expected text", param=where)
    if isinstance(content, str):
        return content
    return flatten_content([{"type": part.type, "text": part.text} for part in content], where)


def _num_logprobs(body: ChatCompletionRequest, config: ServerConfig) -> int | None:
    """``SamplingParams.logprobs`` from OpenAI's two fields."""
    if body.top_logprobs is not None:
        check_cap("top_logprobs", body.top_logprobs, config.max_logprobs)
        if body.top_logprobs and not body.logprobs:
            raise InvalidRequestError(
                f"top_logprobs: {body.top_logprobs}, but logprobs is not true", param="top_logprobs"
            )
    return body.top_logprobs or 0 if body.logprobs else None
