"""Schema-based fuzzing of every route: no 5xx, responses as the OpenAPI description says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from octavo.config import ServerConfig
from octavo.server.app import create_app, operations
from octavo.server.http.openapi import openapi_document
from octavo.server.state import ServerState
from octavo.text.tokenizer import FakeTokenizer
from support.fake_engine_client import FakeEngineClient


def _document() -> dict[str, Any]:
    return openapi_document(operations(ServerState(ServerConfig(), "fake", 64)), keys_required=False)


def _narrowed(document: dict[str, Any]) -> dict[str, Any]:
    """The description without what is well-formed but always refused, so that most examples reach the engine; the
    refusals have tests of their own, and schemathesis still breaks every rule that is left."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"]["200"].get("content", {}).pop("text/event-stream", None)
    schemas = document["components"]["schemas"]
    for name in ("CompletionRequest", "ChatCompletionRequest", "TokenizeRequest", "DetokenizeRequest"):
        fields = schemas[name]["properties"]
        for key in [key for key, value in fields.items() if "Not honoured" in value.get("description", "")]:
            del fields[key]
    for name in ("CompletionRequest", "ChatCompletionRequest"):
        fields = schemas[name]["properties"]
        # A stream is described in words, not by a schema: conformance can be checked on JSON answers.
        fields["stream"] = {"enum": [False, None]}
        del fields["stream_options"], fields["max_completion_tokens"], fields["min_tokens"]
        fields["model"] = {"enum": ["fake", None]}
        fields["stop_token_ids"] = {"enum": [None, [], [7]]}
        fields["logit_bias"] = {
            "type": "object",
            "properties": {"7": {"type": "number"}},
            "additionalProperties": False,
        }
        fields["n"]["anyOf"][0]["maximum"] = 3
    message = schemas["ChatMessage"]
    message["properties"] = {"role": {"enum": ["system", "user", "assistant"]}, "content": {"type": "string"}}
    message["required"] = ["role", "content"]
    schemas["TokenizeRequest"]["required"] = ["prompt"]
    schemas["TokenizeRequest"]["properties"]["prompt"] = {"type": "string"}
    del schemas["TokenizeRequest"]["properties"]["messages"]
    schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] = 511
    return document


def test_fuzz(subtests: pytest.Subtests) -> None:
    # Two seconds to import: here, so that only the process that runs this pays them.
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as conformance

    checks = [
        not_a_server_error,
        conformance.status_code_conformance,
        conformance.content_type_conformance,
        conformance.response_schema_conformance,
    ]
    schema: Any = schemathesis.openapi.from_dict(_narrowed(_document()))
    schema.app = create_app(FakeEngineClient("hi"), FakeTokenizer(), ServerConfig(), "fake")
    for described in schema.get_all_operations():
        operation = described.ok()

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def conforms(case: Any) -> None:
            case.call_and_validate(checks=checks)

        with subtests.test(operation.label):
            conforms()


def test_description_names_every_route_and_every_field() -> None:
    document = _document()
    assert document["paths"].keys() == {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{model_id}",
        "/tokenize",
        "/detokenize",
        "/health",
        "/ready",
        "/version",
        "/metrics",
    }
    fields = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    assert {"messages", "temperature", "top_k", "user", "tools"} <= fields.keys()
    assert fields["tools"]["enum"] == [None, []]
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    assert "422" not in text
    names = {ref.rsplit("/", 1)[-1] for ref in _refs(document)}
    assert names <= document["components"]["schemas"].keys()


def _refs(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_refs, node.values()))
    return set().union(*map(_refs, node)) if isinstance(node, list) else set()
