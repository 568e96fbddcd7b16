"""What may a client send? The bodies of every POST route, typed and bounded.

The same classes validate (``server.parsing``) and describe (``server.openapi``). ``null`` means "not given" for every
field. Caps that an operator sets (``ServerConfig``) are applied afterwards by ``server.limits``. Fields beyond OpenAI's are
named as vLLM names them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Temperature = Annotated[float, Meta(ge=0, le=2, description="0 is greedy")]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
TokenCount = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Name = Annotated[str, Meta(max_length=1024)]


class StreamOptions(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # no effect: nothing is padded here


class GenerationRequest(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What completions and chat completions share."""

    model: Annotated[Name, Meta(description="a name from /v1/models; absent: the served one")] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: TokenCount | None = None
    max_completion_tokens: Annotated[TokenCount, Meta(description="another name of max_tokens")] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1, description="0 or -1: off")] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    logit_bias: Annotated[dict[str, float], Meta(description="token id -> -100..100")] | None = None
    seed: Int64 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = None
    add_special_tokens: bool | None = None
    priority: Annotated[Int32, Meta(description="lower runs first, under --policy priority")] | None = None
    service_class: (
        Annotated[Name, Meta(description="a class of --classes, whose promises it gets; absent: the default")] | None
    ) = None


class CompletionRequest(GenerationRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /v1/completions."""

    prompt: Annotated[
        str | list[str | TokenId | list[TokenId]],
        Meta(description="text, token ids, or a list of either (never mixed)"),
    ]
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, description="only a value equal to n")] | None = None
    logprobs: Annotated[int, Meta(ge=0)] | None = None


class ContentPart(msgspec.Struct, kw_only=True, frozen=True):
    """One part of a message. Only ``text`` is understood; other parts are refused by their type's name."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: Name | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None  # no effect: what a client copies from an answer of ours or OpenAI's
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


class TokenizeRequest(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /tokenize: either ``prompt`` or ``messages``."""

    model: Name | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: Annotated[bool, Meta(description="default: true for prompt, false for messages")] | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: TemplateArguments | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    model: Name | None = None
    tokens: list[TokenId]
