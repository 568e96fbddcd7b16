"""The official ``openai`` client, sync and async, against a real server process with the fake executor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from support.server_process import ServerProcess

HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--executor", "fake", "--fake-step-ms", "2", "--max-model-len", "2048") as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == "fake"
    assert client.models.retrieve("fake").id == "fake"


def test_chat_whole_and_streamed_say_the_same(client: openai.OpenAI) -> None:
    asked = {"model": "fake", "messages": HI, "max_tokens": 20, "seed": 3}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    timings = (whole.model_extra or {})["timings"]
    assert 0 <= timings["queue_s"] <= timings["ttft_s"] <= timings["e2e_s"]
    assert timings["tpot_s"] >= 0.002


def test_chat_with_choices_and_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="fake", messages=HI, max_completion_tokens=6, n=3, logprobs=True, top_logprobs=2, user="me"
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    for choice in answer.choices:
        assert choice.logprobs is not None and choice.logprobs.content is not None
        assert len(choice.logprobs.content) == 6 or choice.finish_reason == "stop"
        assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)


def test_completions_with_vllms_extensions(client: openai.OpenAI) -> None:
    extra = {"top_k": 5, "ignore_eos": True, "min_tokens": 3, "repetition_penalty": 1.0}
    answer = client.completions.create(
        model="fake", prompt=["one", "two"], max_tokens=10, n=2, echo=True, extra_body=extra
    )
    assert [c.text[:3] for c in answer.choices] == ["one", "one", "two", "two"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 40
    scored = client.completions.create(model="fake", prompt=[1, 2, 3], max_tokens=4, logprobs=1)
    assert scored.choices[0].logprobs is not None
    assert len(scored.choices[0].logprobs.tokens or []) == 4


def test_a_repeated_prompt_is_cached(client: openai.OpenAI) -> None:
    for expected in (0, 96):
        answer = client.completions.create(model="fake", prompt=[*range(100)], max_tokens=1)
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        assert answer.usage.prompt_tokens_details.cached_tokens == expected


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"model": "other"}, openai.NotFoundError, "'other' is not served here"),
        ({"temperature": 3}, openai.BadRequestError, "temperature: expected float <= 2.0, got 3"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools: not supported"),
        ({"max_tokens": 5000}, openai.BadRequestError, "5000 output tokens"),
        ({"extra_body": {"topk": 1}}, openai.BadRequestError, "did you mean 'top_k'"),
    ],
)
def test_errors_are_the_clients_own(
    client: openai.OpenAI, asked: dict[str, Any], kind: type[openai.APIStatusError], words: str
) -> None:
    for streaming in (False, True):
        with pytest.raises(kind, match=words) as caught:
            client.chat.completions.create(**({"model": "fake", "messages": HI, "stream": streaming} | asked))
        assert caught.value.request_id
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["type"] == "invalid_request_error"


async def test_many_async_streams_at_once(server: ServerProcess) -> None:
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:

        async def text(prompt: str, streaming: bool) -> str:
            asked: Any = {"model": "fake", "prompt": prompt, "max_tokens": 30, "seed": 1, "stream": streaming}
            answer = await client.completions.create(**asked, extra_body={"ignore_eos": True})
            if not streaming:
                return str(answer.choices[0].text)
            return "".join([chunk.choices[0].text async for chunk in answer])

        prompts = [f"prompt {i}" for i in range(40)]
        streamed = await asyncio.gather(*(text(prompt, True) for prompt in prompts))
        whole = await asyncio.gather(*(text(prompt, False) for prompt in prompts))
    assert streamed == whole
    assert len(set(whole)) == len(prompts)


async def test_clients_that_leave_free_their_requests_at_once(server: ServerProcess) -> None:
    aborted = server.metric("octavo_request_success_total", finished_reason="abort")
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        asked: Any = {"model": "fake", "prompt": "a", "max_tokens": 2000, "extra_body": {"ignore_eos": True}}
        stream = await client.completions.create(**asked, stream=True)
        await anext(aiter(stream))
        assert server.metric("octavo_num_requests_running") == 1
        await stream.close()
        with pytest.raises(openai.APITimeoutError):
            await client.completions.create(**asked, timeout=0.3)
    server.until(lambda: server.metric("octavo_request_success_total", finished_reason="abort") == aborted + 2, 10.0)
    server.until(lambda: server.metric("octavo_num_requests_running") == 0, 10.0)
    assert server.metric("octavo_kv_cache_usage_ratio") == 0


def raw(server: ServerProcess, data: bytes) -> bytes:
    """What the server says to ``data``, up to the close or two seconds of silence."""
    url = httpx.URL(server.url)
    answer = b""
    with socket.create_connection((url.host, url.port or 80), timeout=2) as connection:
        try:
            connection.sendall(data)
            while part := connection.recv(65536):
                answer += part
        except (TimeoutError, ConnectionError):
            pass
    return answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nhost: x\r\nbig: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"NONSENSE\r\n\r\n",
    ],
    ids=["one-large-header", "many-headers", "long-url", "nonsense"],
)
def test_oversized_and_broken_heads_are_refused(server: ServerProcess, head: bytes) -> None:
    assert raw(server, head).startswith(b"HTTP/1.1 400")
    assert server.get("/health").status_code == 200


def test_a_large_body_is_refused_without_being_read(server: ServerProcess) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n\r\n"
    assert raw(server, head + b"{").startswith(b"HTTP/1.1 413")
