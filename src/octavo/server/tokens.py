"""POST /tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import InvalidRequestError
from octavo.server.answers import DetokenizeAnswer, TokenizeAnswer
from octavo.server.inputs import encode_chat, off_loop
from octavo.server.limits import check_token_ids
from octavo.server.logprobs import token_string
from octavo.server.parsing import read_request
from octavo.server.requests import DetokenizeRequest, TokenizeRequest
from octavo.server.state import Backend, ServerState
from octavo.server.wire import json_response


class Tokens:
    """The two routes."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def tokenize(self, request: Request) -> Response:
        body = await read_request(request, TokenizeRequest, self._state.config.max_body_bytes)
        backend = self._state.backend(body.model)
        token_ids = await _encode(body, backend)
        strings = None
        if body.return_token_strs:
            strings = [token_string(backend.tokenizer.token_bytes(token_id)) for token_id in token_ids]
        return json_response(
            TokenizeAnswer(
                count=len(token_ids),
                max_model_len=backend.client.info.max_model_len,
                tokens=token_ids,
                token_strs=strings,
            )
        )

    async def detokenize(self, request: Request) -> Response:
        body = await read_request(request, DetokenizeRequest, self._state.config.max_body_bytes)
        backend = self._state.backend(body.model)
        check_token_ids(body.tokens, backend.client.info, "tokens")
        text = await off_loop(
            len(body.tokens), lambda: backend.tokenizer.decode(body.tokens, skip_special_tokens=False)
        )
        return json_response(DetokenizeAnswer(prompt=text))


async def _encode(body: TokenizeRequest, backend: Backend) -> list[int]:
    tokenizer, text = backend.tokenizer, body.prompt
    if (text is None) == (body.messages is None):
        came = "neither" if text is None else "both"
        raise InvalidRequestError(f"prompt: {came} of prompt and messages given, expected one of them", param="prompt")
    if text is not None:
        add_special = body.add_special_tokens is not False
        return await off_loop(len(text), lambda: tokenizer.encode(text, add_special))
    return await encode_chat(
        body.messages or [],
        tokenizer,
        add_generation_prompt=body.add_generation_prompt is not False,
        add_special_tokens=bool(body.add_special_tokens),
        variables=body.chat_template_kwargs or {},
    )
