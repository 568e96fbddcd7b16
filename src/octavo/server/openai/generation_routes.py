"""POST /v1/chat/completions and /v1/completions as routes."""

from __future__ import annotations

from octavo.server.endpoint import GenerationApi, GenerationEndpoint
from octavo.server.http.openapi import Operation
from octavo.server.openai.chat_request import CHAT_SCHEMA, chat_job
from octavo.server.openai.chat_response import ChatCompletion, ChatCompletionChunk, ChatRenderer
from octavo.server.openai.completion_request import COMPLETION_SCHEMA, completion_job
from octavo.server.openai.completion_response import Completion, CompletionRenderer
from octavo.server.state import ServerState

_CHAT = GenerationApi(CHAT_SCHEMA, chat_job, ChatRenderer)
_COMPLETIONS = GenerationApi(COMPLETION_SCHEMA, completion_job, CompletionRenderer)
_ERRORS = (400, 401, 404, 413, 500, 503)


def generation_operations(state: ServerState) -> list[Operation]:
    """The two routes that generate."""
    return [
        Operation(
            method="POST",
            path="/v1/completions",
            endpoint=GenerationEndpoint(_COMPLETIONS, state).post,
            summary="Create a completion",
            body=COMPLETION_SCHEMA,
            response=Completion,
            chunk=Completion,
            errors=_ERRORS,
        ),
        Operation(
            method="POST",
            path="/v1/chat/completions",
            endpoint=GenerationEndpoint(_CHAT, state).post,
            summary="Create a chat completion",
            body=CHAT_SCHEMA,
            response=ChatCompletion,
            chunk=ChatCompletionChunk,
            errors=_ERRORS,
        ),
    ]
