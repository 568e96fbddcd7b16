"""The main job on real input: the default model behind a real server, asked by the official client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from octavo.config import DEFAULT_MODEL
from support.server_process import ServerProcess

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(300)]

QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess(DEFAULT_MODEL, start_timeout_s=250.0) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=200) as client:
        yield client


def test_it_answers_a_question(client: openai.OpenAI) -> None:
    asked: Any = {"model": DEFAULT_MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**asked)
    assert "Paris" in str(whole.choices[0].message.content)
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    first_word = client.chat.completions.create(**asked, stop=[" capital"])
    assert first_word.choices[0].message.content == "The"


def test_it_continues_text_and_scores_it(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=DEFAULT_MODEL, prompt="One, two, three, four,", temperature=0, max_tokens=4, logprobs=3
    )
    choice = answer.choices[0]
    assert choice.text.startswith(" five")
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == choice.text
    for logprob, top in zip(choice.logprobs.token_logprobs or [], choice.logprobs.top_logprobs or [], strict=True):
        assert len(top) == 3
        assert logprob == max(top.values()) <= 0.0  # greedy takes the likeliest


def test_native_kernels_never_pay_for_torch(server: ServerProcess, client: openai.OpenAI) -> None:
    """Whatever was asked for, and both processes together stay within what the weights and 250 MB allow."""
    if "by native kernels" not in server.output:
        pytest.skip("another executor serves here")
    client.completions.create(
        model=DEFAULT_MODEL, prompt="One, two,", max_tokens=4, logprobs=2, frequency_penalty=0.5, top_p=0.9, seed=1
    )
    peak_bytes = 0
    for pid in (server.process.pid, server.engine_pid()):
        process = Path("/proc") / str(pid)
        assert "libtorch" not in (process / "maps").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
        assert found is not None
        peak_bytes += int(found[1]) << 10
    weight_bytes = server.get("/v1/models").json()["data"][0]["weight_bytes"]
    assert peak_bytes <= 1.3 * weight_bytes + 250e6
