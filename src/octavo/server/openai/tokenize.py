"""POST /tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import InvalidRequestError
from octavo.server.http.body import BodySchema, read_body
from octavo.server.http.openapi import Operation
from octavo.server.http.responses import json_response
from octavo.server.openai.chat_request import Messages, TemplateArguments, template_messages
from octavo.server.openai.parameters import UNTYPED
from octavo.server.openai.sampling import Name, TokenId, check_token_ids
from octavo.server.prompts import encode_chat, off_loop
from octavo.server.state import ServedModel, ServerState
from octavo.text.codec import token_text


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


class TokenizeResponse(msgspec.Struct, kw_only=True, frozen=True):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeResponse(msgspec.Struct, kw_only=True, frozen=True):
    prompt: str


TOKENIZE_SCHEMA = BodySchema(TokenizeRequest, UNTYPED)
DETOKENIZE_SCHEMA = BodySchema(DetokenizeRequest, UNTYPED)


class Tokenization:
    """The two routes; ``operations`` has both."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    @property
    def operations(self) -> list[Operation]:
        """The two routes and their descriptions."""
        errors = (400, 401, 404, 413, 503)
        return [
            Operation(
                method="POST",
                path="/tokenize",
                endpoint=self.tokenize,
                summary="Tokenize",
                body=TOKENIZE_SCHEMA,
                response=TokenizeResponse,
                errors=errors,
            ),
            Operation(
                method="POST",
                path="/detokenize",
                endpoint=self.detokenize,
                summary="Detokenize",
                body=DETOKENIZE_SCHEMA,
                response=DetokenizeResponse,
                errors=errors,
            ),
        ]

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a prompt or of a conversation."""
        body = await read_body(request, TOKENIZE_SCHEMA, self._state.config.max_body_bytes)
        model = self._state.model(body.model)
        token_ids = await _encode(body, model)
        strings = None
        if body.return_token_strs:
            strings = [token_text(model.tokenizer.token_bytes(token_id)) for token_id in token_ids]
        return json_response(
            TokenizeResponse(
                count=len(token_ids),
                max_model_len=model.client.info.max_model_len,
                tokens=token_ids,
                token_strs=strings,
            )
        )

    async def detokenize(self, request: Request) -> Response:
        """Text of token ids."""
        body = await read_body(request, DETOKENIZE_SCHEMA, self._state.config.max_body_bytes)
        model = self._state.model(body.model)
        check_token_ids(body.tokens, model.client.info, "tokens")
        text = await off_loop(len(body.tokens), lambda: model.tokenizer.decode(body.tokens, skip_special_tokens=False))
        return json_response(DetokenizeResponse(prompt=text))


async def _encode(body: TokenizeRequest, model: ServedModel) -> list[int]:
    tokenizer, text = model.tokenizer, body.prompt
    if (text is None) == (body.messages is None):
        came = "neither" if text is None else "both"
        raise InvalidRequestError(f"prompt: {came} of prompt and messages given, expected one of them", param="prompt")
    if text is not None:
        add_special = body.add_special_tokens is not False
        return await off_loop(len(text), lambda: tokenizer.encode(text, add_special))
    return await encode_chat(
        template_messages(body.messages or []),
        tokenizer,
        add_generation_prompt=body.add_generation_prompt is not False,
        add_special_tokens=bool(body.add_special_tokens),
        variables=body.chat_template_kwargs or {},
    )
