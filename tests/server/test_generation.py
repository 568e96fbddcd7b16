"""/v1/completions and /v1/chat/completions over a scripted engine: texts, streams, usage, finish reasons, logprobs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from octavo.errors import EngineDeadError
from support.fake_engine_client import TEXT, FakeEngineClient, connect

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def post(engine: FakeEngineClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with connect(engine) as client:
        response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def stream(engine: FakeEngineClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The parsed events of a stream, without the ``[DONE]`` that must end it."""
    async with connect(engine) as client:
        response = await client.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def joined(chunks: list[dict[str, Any]], index: int = 0) -> str:
    """The text of one choice of a stream of either route."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)


async def test_completion_says_the_whole_text_and_counts_tokens() -> None:
    answer = await post(FakeEngineClient(), "/v1/completions", {"prompt": "abc", "max_tokens": 200})
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == TEXT
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    num_output = len(TEXT.encode()) + 1  # and end-of-sequence
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, num_output)  # with <bos>
    assert usage["total_tokens"] == 4 + num_output
    assert usage["prompt_tokens_details"] == {"cached_tokens": 4}
    assert answer["timings"] == {"queue_s": 0.1, "ttft_s": 0.2, "tpot_s": 0.01, "e2e_s": 0.5, "num_preemptions": 0}


async def test_completion_defaults_to_sixteen_tokens_and_chat_to_the_rest_of_the_context() -> None:
    engine = FakeEngineClient()
    answer = await post(engine, "/v1/completions", {"prompt": "abc"})
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"
    await post(engine, "/v1/chat/completions", CHAT)
    assert [s.params.max_tokens for s in engine.submissions] == [16, None]


async def test_chat_renders_the_template_without_a_second_bos() -> None:
    engine = FakeEngineClient()
    answer = await post(engine, "/v1/chat/completions", {**CHAT, "max_completion_tokens": 5})
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello", "refusal": None}
    assert bytes(engine.submissions[0].prompt_token_ids) == b"user: hi\nassistant:"


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"max_tokens": 8},
        {"stop": "the end"},
        {"stop": ["zzz", ", th"], "include_stop_str_in_output": True},
        {"stop_token_ids": [ord("t")]},
        {"stop_token_ids": [ord("t")], "include_stop_str_in_output": True},
        {"n": 3, "seed": 7},
    ],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_stream_says_what_the_whole_answer_says(path: str, extra: dict[str, Any]) -> None:
    prompt = {"prompt": "abc"} if path == "/v1/completions" else CHAT
    body = {"max_tokens": 200, **prompt, **extra}
    whole = await post(FakeEngineClient(), path, body)
    chunks = await stream(FakeEngineClient(), path, {**body, "stream_options": {"include_usage": True}})
    for choice in whole["choices"]:
        expected = choice["text"] if "text" in choice else choice["message"]["content"]
        assert joined(chunks, choice["index"]) == expected
        ends = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"] and c["finish_reason"]]
        assert [(c["finish_reason"], c["stop_reason"]) for c in ends] == [
            (choice["finish_reason"], choice["stop_reason"])
        ]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["timings"].keys() == whole["timings"].keys()


async def test_stream_without_usage_carries_timings_on_its_last_chunk_only() -> None:
    chunks = await stream(FakeEngineClient(), "/v1/chat/completions", {**CHAT, "max_tokens": 5, "n": 2})
    assert all("usage" not in chunk for chunk in chunks)
    assert ["timings" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {c["index"] for chunk in chunks for c in chunk["choices"]} == {0, 1}
    for index in (0, 1):
        mine = [c["delta"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert mine[0] == {"role": "assistant", "content": ""}
        assert "".join(delta.get("content", "") for delta in mine) == "Hello"


async def test_stop_string_across_tokens_ends_the_request_in_the_engine() -> None:
    engine = FakeEngineClient()
    answer = await post(engine, "/v1/completions", {"prompt": "abc", "max_tokens": 200, "stop": ["the end", "rld,"]})
    choice = answer["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("Hello wö", "stop", "rld,")
    assert engine.aborted == [engine.submissions[0].request_id]
    assert answer["usage"]["completion_tokens"] == len("Hello wörld,".encode())
    assert answer["timings"]["e2e_s"] > 0  # measured here: the engine had no last word


async def test_stop_token_is_named_and_not_shown() -> None:
    body = {"prompt": "abc", "max_tokens": 200, "stop_token_ids": [ord(",")]}
    choice = (await post(FakeEngineClient(), "/v1/completions", body))["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("Hello wörld", "stop")


async def test_prompts_of_every_shape_and_choices_in_order() -> None:
    engine = FakeEngineClient()
    for prompt, expected in (
        ("ab", [[256, 97, 98]]),
        (["a", "b"], [[256, 97], [256, 98]]),
        ([5, 6], [[5, 6]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ):
        engine.submissions.clear()
        answer = await post(engine, "/v1/completions", {"prompt": prompt, "n": 2, "max_tokens": 3})
        assert [c["index"] for c in answer["choices"]] == list(range(2 * len(expected)))
        assert [s.prompt_token_ids for s in engine.submissions] == [p for p in expected for _ in range(2)]
        assert answer["usage"]["prompt_tokens"] == sum(map(len, expected))
    assert len({s.request_id for s in engine.submissions}) == len(engine.submissions)


async def test_choices_of_a_seeded_request_have_seeds_of_their_own_and_the_first_keeps_its_own() -> None:
    engine = FakeEngineClient()
    await post(engine, "/v1/completions", {"prompt": "a", "n": 3, "seed": -5})
    await post(engine, "/v1/completions", {"prompt": "a", "n": 3, "seed": -5})
    seeds = [s.params.seed for s in engine.submissions]
    assert seeds[0] == -5
    assert len(set(seeds[:3])) == 3
    assert seeds[:3] == seeds[3:]
    assert all(-(2**63) <= seed < 2**63 for seed in seeds if seed is not None)


@pytest.mark.parametrize("streaming", [False, True])
async def test_echo_sends_the_prompt_first(streaming: bool) -> None:
    body = {"prompt": ["ab", "cd"], "echo": True, "max_tokens": 2, "n": 2}
    if streaming:
        chunks = await stream(FakeEngineClient(), "/v1/completions", body)
        texts = [joined(chunks, i) for i in range(4)]
    else:
        texts = [c["text"] for c in (await post(FakeEngineClient(), "/v1/completions", body))["choices"]]
    assert texts == ["abHe", "abHe", "cdHe", "cdHe"]


async def test_completion_logprobs_offsets_point_into_the_text() -> None:
    body = {"prompt": "a", "max_tokens": 12, "logprobs": 2}
    whole = (await post(FakeEngineClient(), "/v1/completions", body))["choices"][0]
    logprobs = whole["logprobs"]
    assert logprobs["tokens"][:3] == ["H", "e", "l"]
    assert logprobs["tokens"][7:9] == ["bytes:\\xc3", "bytes:\\xb6"]  # one letter, two tokens
    assert logprobs["text_offset"] == [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10]
    assert logprobs["top_logprobs"][0] == {"H": -0.5, "I": -1.5}
    chunks = await stream(FakeEngineClient(), "/v1/completions", body)
    streamed = [c["logprobs"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
    for key in ("tokens", "text_offset", "token_logprobs", "top_logprobs"):
        assert [x for part in streamed for x in part[key]] == logprobs[key]


async def test_chat_logprobs_carry_bytes_and_exactly_the_alternatives_asked_for() -> None:
    body = {**CHAT, "max_tokens": 9, "logprobs": True, "top_logprobs": 3}
    content = (await post(FakeEngineClient(), "/v1/chat/completions", body))["choices"][0]["logprobs"]["content"]
    assert len(content) == 9
    assert bytes(byte for entry in content for byte in entry["bytes"]).decode() == "Hello wö"
    assert [len(entry["top_logprobs"]) for entry in content] == [3] * 9
    bare = await post(FakeEngineClient(), "/v1/chat/completions", {**CHAT, "max_tokens": 2, "logprobs": True})
    assert [e["top_logprobs"] for e in bare["choices"][0]["logprobs"]["content"]] == [[], []]


async def test_parameters_reach_the_engine_unchanged() -> None:
    engine = FakeEngineClient()
    sent = {"temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.1, "presence_penalty": -1, "frequency_penalty": 2}
    sent |= {"repetition_penalty": 1.5, "min_tokens": 2, "ignore_eos": True, "skip_special_tokens": False}
    await post(engine, "/v1/completions", {"prompt": "a", **sent, "logit_bias": {"7": -100}, "priority": -3})
    params = engine.submissions[0].params
    assert {name: getattr(params, name) for name in sent} == sent
    assert params.logit_bias == {7: -100.0}
    assert engine.submissions[0].priority == -3


async def test_content_parts_and_the_developer_role_are_plain_text_to_the_template() -> None:
    engine = FakeEngineClient()
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    await post(engine, "/v1/chat/completions", {"messages": messages, "max_tokens": 1})
    assert bytes(engine.submissions[0].prompt_token_ids) == b"system: be brief\nuser: one\ntwo\nassistant:"


@pytest.mark.parametrize("body", [{"user": "me"}, {"store": True, "metadata": {"a": "b"}}, {"tools": []}])
@pytest.mark.parametrize(
    "more", [{"tool_choice": "none"}, {"response_format": {"type": "text"}}, {"temperature": None}]
)
async def test_harmless_and_neutral_parameters_pass(body: dict[str, Any], more: dict[str, Any]) -> None:
    await post(FakeEngineClient(), "/v1/chat/completions", {**CHAT, "max_tokens": 1, **body, **more})


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_request_that_fails_at_once_is_an_error_with_a_status(streaming: bool) -> None:
    engine = FakeEngineClient()
    engine.error_after = 0
    async with connect(engine) as client:
        response = await client.post("/v1/completions", json={"prompt": "a", "stream": streaming})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "request_failed")
        engine.refusal = EngineDeadError("the engine is being restarted")
        response = await client.post("/v1/completions", json={"prompt": "a", "stream": streaming})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_dead")
        assert int(response.headers["retry-after"]) >= 1


async def test_an_error_in_mid_stream_is_an_event() -> None:
    engine = FakeEngineClient()
    engine.error_after = 3
    chunks = await stream(engine, "/v1/completions", {"prompt": "a"})
    assert joined(chunks[:-1]) == "Hel"
    assert chunks[-1]["error"]["message"] == "non-finite logits"


async def test_one_failing_choice_aborts_the_others() -> None:
    engine = FakeEngineClient()
    engine.error_after = 2
    async with connect(engine) as client:
        response = await client.post("/v1/completions", json={"prompt": "a", "n": 4})
    assert response.status_code == 500
    assert engine.num_pending == 0


async def test_a_dead_engine_is_told_from_a_bad_request() -> None:
    engine = FakeEngineClient()
    engine.error_after, engine.reason = 1, "the engine died"
    async with connect(engine) as client:
        response = await client.post("/v1/completions", json={"prompt": "a"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_dead")


async def test_many_requests_at_once_keep_their_answers_apart() -> None:
    engine = FakeEngineClient()
    async with connect(engine) as client:

        async def one(i: int) -> httpx.Response:
            return await client.post("/v1/completions", json={"prompt": [i], "max_tokens": 1 + i % 7, "echo": True})

        answers = await asyncio.gather(*(one(i) for i in range(48)))
    for i, answer in enumerate(answers):
        expected = bytes([i]).decode() + TEXT[: 1 + i % 7]
        assert answer.json()["choices"][0]["text"] == expected
