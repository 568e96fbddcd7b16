"""Invalid requests: OpenAI's error shape, a fitting status, and a message that names field, value and limit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from octavo.config import ServerConfig
from support.fake_engine_client import FakeEngineClient, connect

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
TEXT: dict[str, Any] = {"prompt": "hi"}
CAPS = ServerConfig(max_n=4, max_logprobs=5, max_stop=2, max_stop_chars=8, max_logit_bias=2, max_prompts=3)

COMPLETION_CASES = [
    ({"prompt": 5}, "prompt", "5"),
    ({}, "prompt", "missing"),
    ({"prompt": []}, "prompt", "empty"),
    ({"prompt": [[]]}, "prompt", "empty"),
    ({"prompt": ["a", 1]}, "prompt", "mixed"),
    ({"prompt": ["a"] * 4}, "prompt", "4 prompts, at most 3"),
    ({"prompt": [512]}, "prompt", "512, at most 511"),
    ({"prompt": [[1], [2, 600]]}, "prompt[1]", "600, at most 511"),
    ({"prompt": [-1]}, "prompt[0]", "-1"),
    ({**TEXT, "max_tokens": 0}, "max_tokens", ">= 1, got 0"),
    ({**TEXT, "max_tokens": 1.5}, "max_tokens", "got 1.5"),
    ({**TEXT, "max_tokens": True}, "max_tokens", "got true"),
    ({**TEXT, "max_tokens": 10**40}, "max_tokens", "got 1"),
    ({**TEXT, "max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "6, but max_tokens is 5"),
    ({**TEXT, "min_tokens": 17}, "min_tokens", "17, at most max_tokens = 16"),
    ({**TEXT, "temperature": 2.5}, "temperature", "<= 2.0, got 2.5"),
    ({**TEXT, "temperature": "hot"}, "temperature", '"hot"'),
    ({**TEXT, "top_p": 0}, "top_p", "> 0.0, got 0"),
    ({**TEXT, "top_k": -2}, "top_k", ">= -1, got -2"),
    ({**TEXT, "min_p": 1.1}, "min_p", "1.1"),
    ({**TEXT, "presence_penalty": 3}, "presence_penalty", "3"),
    ({**TEXT, "repetition_penalty": 0}, "repetition_penalty", "0"),
    ({**TEXT, "seed": 2**63}, "seed", "9223372036854775808"),
    ({**TEXT, "n": 5}, "n", "5, at most 4"),
    ({**TEXT, "n": 0}, "n", "0"),
    ({**TEXT, "best_of": 2}, "best_of", "2, only n = 1"),
    ({**TEXT, "logprobs": 6}, "logprobs", "6, at most 5"),
    ({**TEXT, "logprobs": True}, "logprobs", "true"),
    ({**TEXT, "logprobs": 1, "echo": True}, "echo", "logprobs"),
    ({**TEXT, "stop": ["a", "b", "c"]}, "stop", "3 strings, at most 2"),
    ({**TEXT, "stop": "123456789"}, "stop[0]", "9 characters, at most 8"),
    ({**TEXT, "stop": ["a", ""]}, "stop", "stop[1]: empty"),
    ({**TEXT, "stop_token_ids": [1, 2, 3]}, "stop_token_ids", "3 ids, at most 2"),
    ({**TEXT, "stop_token_ids": [512]}, "stop_token_ids", "512, at most 511"),
    ({**TEXT, "logit_bias": {"1": 0, "2": 0, "3": 0}}, "logit_bias", "3 entries, at most 2"),
    ({**TEXT, "logit_bias": {"x": 1}}, "logit_bias", '"x", expected a token id of 0..511'),
    ({**TEXT, "logit_bias": {"512": 1}}, "logit_bias", '"512"'),
    ({**TEXT, "logit_bias": {"1": 101}}, "logit_bias", "101.0, expected -100..100"),
    ({**TEXT, "logit_bias": [1]}, "logit_bias", "an array of 1"),
    ({**TEXT, "stream_options": {"include_usage": True}}, "stream_options", "stream"),
    ({**TEXT, "stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown"),
    ({**TEXT, "max_token": 5}, "max_token", "did you mean 'max_tokens'?"),
    ({**TEXT, "xyzzy": None}, "xyzzy", "unknown parameter"),
    ({**TEXT, "suffix": "!"}, "suffix", "not supported"),
    ({**TEXT, "prompt_logprobs": 0}, "prompt_logprobs", "not supported"),
    ({**TEXT, "guided_json": {}}, "guided_json", "not supported"),
    ({**TEXT, "use_beam_search": 0}, "use_beam_search", "False"),
]

IMAGE = [{"type": "image_url", "image_url": {"url": "data:,"}}]
CHAT_CASES = [
    ({}, "messages", "missing"),
    ({"messages": []}, "messages", "an array of 0"),
    ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role", "boss"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "missing"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "got 7"),
    ({"messages": [{"role": "user", "content": IMAGE}]}, "messages[0].content[0]", "images are not supported"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]", "missing"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0]", "tools"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0]", "tool_calls"),
    ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood", "unknown"),
    ({**CHAT, "tools": [{"type": "function"}]}, "tools", "not supported"),
    ({**CHAT, "tool_choice": "required"}, "tool_choice", "'none'"),
    ({**CHAT, "functions": [{}]}, "functions", "not supported"),
    ({**CHAT, "response_format": {"type": "json_object"}}, "response_format", "'text'"),
    ({**CHAT, "modalities": ["text", "audio"]}, "modalities", "not supported"),
    ({**CHAT, "audio": {"voice": "x"}}, "audio", "not supported"),
    ({**CHAT, "reasoning_effort": "high"}, "reasoning_effort", "not supported"),
    ({**CHAT, "service_tier": "flex"}, "service_tier", "auto"),
    ({**CHAT, "chat_template": "{{ 1 }}"}, "chat_template", "not supported"),
    ({**CHAT, "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "messages"),
    ({**CHAT, "chat_template_kwargs": {"self": 1}}, "chat_template_kwargs", "self"),
    ({**CHAT, "top_logprobs": 2}, "top_logprobs", "logprobs is not true"),
    ({**CHAT, "logprobs": True, "top_logprobs": 6}, "top_logprobs", "6, at most 5"),
    ({**CHAT, "logprobs": 2}, "logprobs", "got 2"),
    ({**CHAT, "prompt": "x"}, "prompt", "unknown parameter"),
]

CASES = [("/v1/completions", *case) for case in COMPLETION_CASES]
CASES += [("/v1/chat/completions", *case) for case in CHAT_CASES]


@pytest.mark.parametrize(("path", "body", "param", "words"), CASES, ids=[f"{c[0][4:8]}-{c[2]}-{c[3]}" for c in CASES])
async def test_refused(path: str, body: dict[str, Any], param: str, words: str) -> None:
    engine = FakeEngineClient()
    async with connect(engine, CAPS) as client:
        response = await client.post(path, json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"].startswith(param)
    assert error["param"] in error["message"] or param == "body"
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert engine.submissions == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"prompt": "a", "temperature": NaN}', "not valid JSON"),
        (b'{"prompt": "a", "temperature": 1e999}', "not valid JSON"),
        (b'{"prompt": "\xff"}', "not valid JSON"),
        (b'{"prompt": "\\ud800"}', "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"prompt":' * 50_000, "nested too deeply"),
        (b'["a"]', "expected a JSON object, got an array of 1"),
        (b"null", "expected a JSON object, got null"),
        (b'"text"', "expected a JSON object"),
    ],
)
async def test_broken_json(content: bytes, words: str) -> None:
    async with connect(FakeEngineClient()) as client:
        response = await client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_other_content_types_are_named(content_type: str) -> None:
    async with connect(FakeEngineClient()) as client:
        response = await client.post("/v1/completions", content=b"{}", headers={"content-type": content_type})
    assert response.status_code == 400
    assert "expected application/json" in response.json()["error"]["message"]
    assert content_type in response.json()["error"]["message"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_the_cap_is_not_read_to_its_end(declared: bool) -> None:
    num_sent = 0

    async def body() -> Any:
        nonlocal num_sent
        for _ in range(1000):
            num_sent += 1024
            yield b" " * 1024

    headers = {"content-type": "application/json"} | ({"content-length": str(1024 * 1000)} if declared else {})
    async with connect(FakeEngineClient(), ServerConfig(max_body_bytes=4096)) as client:
        response = await client.post("/v1/completions", content=body(), headers=headers)
    assert response.status_code == 413
    assert "at most 4096" in response.json()["error"]["message"]
    assert response.headers["connection"] == "close"
    assert num_sent <= 6 * 1024


async def test_prompt_that_can_never_fit_is_refused_with_the_allocators_arithmetic() -> None:
    async with connect(FakeEngineClient(max_model_len=512, num_blocks=20)) as client:
        in_context = await client.post("/v1/completions", json={"prompt": [1] * 500, "max_tokens": 12})
        in_blocks = await client.post("/v1/completions", json={"prompt": [1] * 300, "max_tokens": 21})
        fits = await client.post("/v1/completions", json={"prompt": [1] * 300, "max_tokens": 20})
        over = await client.post("/v1/completions", json={"prompt": [1] * 500, "max_tokens": 13})
        chat = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x" * 600}]})
    message = in_blocks.json()["error"]["message"]
    assert "300 prompt tokens + 21 output tokens = 321" in message
    assert "ceil(321 / 16) = 21 KV blocks, the cache has 20" in message
    assert "512 / 16" in in_context.json()["error"]["message"]
    assert fits.status_code == 200
    assert "context of fake is 512 tokens" in over.json()["error"]["message"]
    for response in (in_context, in_blocks, over, chat):
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
async def test_unknown_model(path: str) -> None:
    body = {"prompt": "a"} if path != "/detokenize" else {"tokens": [1]}
    body |= CHAT if "chat" in path else {}
    body.pop("prompt", None) if "chat" in path else None
    async with connect(FakeEngineClient()) as client:
        response = await client.post(path, json={"model": "gpt-17", **body})
        known = await client.post(path, json={"model": "fake", **body})
    assert response.status_code == 404
    assert "'gpt-17'" in response.json()["error"]["message"]
    assert "'fake'" in response.json()["error"]["message"]
    assert known.status_code == 200


async def test_unknown_routes_and_methods_have_the_error_shape() -> None:
    async with connect(FakeEngineClient()) as client:
        missing = await client.get("/v2/nothing")
        method = await client.get("/v1/completions")
        model = await client.get("/v1/models/other/name")
    assert [missing.status_code, method.status_code, model.status_code] == [404, 405, 404]
    assert method.headers["allow"] == "POST"
    for response in (missing, method, model):
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}


async def test_a_long_value_is_cut_in_the_message() -> None:
    async with connect(FakeEngineClient()) as client:
        response = await client.post("/v1/completions", json={"prompt": "a", "temperature": "x" * 10_000, "n": 1})
        unknown = await client.post("/v1/completions", json={"prompt": "a", "k" * 10_000: 1})
    assert len(response.json()["error"]["message"]) < 200
    assert len(unknown.text) < 1000


async def test_messages_are_json_even_with_odd_text() -> None:
    async with connect(FakeEngineClient()) as client:
        response = await client.post("/v1/completions", json={"prompt": "a", 'quote" \n{}\x00': 1})
    assert json.loads(response.content)["error"]["param"] == 'quote" \n{}\x00'
