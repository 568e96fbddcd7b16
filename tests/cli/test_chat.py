"""octavo chat: the conversation loop with a scripted partner, Ctrl-C between chunks, a partner behind HTTP."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from octavo.cli.chat import Conversation, Message
from octavo.cli.interrupt import Interrupt
from octavo.cli.main import EXIT_USAGE, run
from octavo.cli.remote_chat import RemoteChat, RemoteError
from octavo.errors import ConfigError, InvalidRequestError, RequestFailedError
from octavo.types import SamplingParams


class Echo:
    """Answers with the number of messages and the last one, a word at a time."""

    name = "echo"

    def __init__(self, on_chunk: Callable[[int], None] = lambda index: None) -> None:
        self.asked: list[list[Message]] = []
        self.closed = 0
        self._on_chunk = on_chunk

    def respond(self, messages: list[Message]) -> Iterator[str]:
        self.asked.append(messages)
        try:
            for index, word in enumerate(f"{len(messages)} {messages[-1]['content']}".split(" ")):
                self._on_chunk(index)
                yield word + " "
        finally:
            self.closed += 1


def talk(partner: Echo, lines: str, monkeypatch: pytest.MonkeyPatch, system: str = "") -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    Conversation(partner, system).run()


def test_every_line_is_a_message_and_history_grows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    partner = Echo()
    talk(partner, "hello\n\n  \nand you?", monkeypatch, system="be brief")
    assert capsys.readouterr().out == "2 hello \n4 and you? \n"
    assert partner.asked[1] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "2 hello "},
        {"role": "user", "content": "and you?"},
    ]


def test_commands_from_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    partner = Echo()
    talk(partner, "one\n/reset\ntwo\n/system be rude\nthree\n/system\n/help\nfour\n/exit\nnever\n", monkeypatch)
    assert [len(messages) for messages in partner.asked] == [1, 1, 4, 5]
    assert partner.asked[2][0] == {"role": "system", "content": "be rude"}
    assert "never" not in capsys.readouterr().out


def test_a_mistyped_command_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    partner = Echo()
    with pytest.raises(InvalidRequestError, match="unknown command /rset"):
        talk(partner, "/rset\nhello\n", monkeypatch)
    assert partner.asked == []


def test_interrupt_stops_the_answer_and_keeps_what_was_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def strike(index: int) -> None:
        if index == 1 and len(partner.asked) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    partner = Echo(strike)
    talk(partner, "a b c d\nnext\n", monkeypatch)
    assert capsys.readouterr().out == "1 a \n3 next \n"
    assert partner.asked[1][1] == {"role": "assistant", "content": "1 a "}
    assert partner.closed == 2  # the stopped answer was closed, so its request is aborted
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_is_not_swallowed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.wanted
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_from_a_pipe_an_error_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(index: int) -> None:
        raise RequestFailedError("it broke")

    with pytest.raises(RequestFailedError, match="it broke"):
        talk(Echo(fail), "hello\nagain\n", monkeypatch)


def test_the_fake_model_chats(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nagain\n"))
    assert run(["chat", "--model", "fake", "--max-tokens", "6", "--ignore-eos", "--seed", "1"]) == 0
    assert capsys.readouterr().out.count("\n") >= 2


def test_the_fake_model_generates_the_same_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["generate", "--model", "fake", "--max-tokens", "12", "--ignore-eos", "--stats"]
    assert run([*common, "Once upon"]) == 0
    direct = capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO("Once upon"))
    assert run([*common, "-"]) == 0
    piped = capsys.readouterr()
    assert len(direct.out) > 1
    assert direct.out == piped.out
    assert "10 prompt tokens, 12 output tokens" in direct.err
    assert "ended by length" in direct.err


def test_an_empty_prompt_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run(["generate", "--model", "fake"]) == EXIT_USAGE
    assert "the prompt is empty" in capsys.readouterr().err


def server(handle: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(handle))


def models_then(answer: httpx.Response, seen: list[httpx.Request]) -> Callable[[httpx.Request], httpx.Response]:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "first"}, {"id": "second"}]})
        return answer

    return handle


def events(*payloads: object, done: bool = True) -> httpx.Response:
    text = ": comment\n\n" + "".join(f"data: {json.dumps(payload)}\n\n" for payload in payloads)
    return httpx.Response(200, text=text + ("data: [DONE]\n\n" if done else ""))


def content(text: str) -> dict[str, object]:
    return {"choices": [{"delta": {"content": text}}]}


def test_a_server_streams(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("s3cret\nold\n")
    seen: list[httpx.Request] = []
    answer = events({"choices": [{"delta": {"role": "assistant"}}]}, content("Hé"), content("llo"), {"choices": []})
    params = SamplingParams(temperature=0.5, max_tokens=9)
    client = server(models_then(answer, seen))
    partner = RemoteChat("http://host:1/v1/", None, str(key_file), params, client)
    assert "".join(partner.respond([{"role": "user", "content": "hi"}])) == "Héllo"
    assert partner.name == "first at http://host:1"
    body = json.loads(seen[1].content)
    assert body == {
        "model": "first",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "temperature": 0.5,
        "max_tokens": 9,
    }
    assert {request.headers["authorization"] for request in seen} == {"Bearer s3cret"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(404, json={"error": {"message": "no such model"}}), "404: no such model"),
        (httpx.Response(502, text="<html>"), "502 Bad Gateway"),
        (httpx.Response(500, json=["odd"]), "500 Internal Server Error"),
        (events({"error": {"message": "the engine died"}}), "the engine died"),
        (httpx.Response(200, text="data: {oops\n\n"), "not JSON"),
    ],
)
def test_what_a_server_refuses_is_said(answer: httpx.Response, message: str) -> None:
    partner = RemoteChat("http://host", "m", None, SamplingParams(), server(models_then(answer, [])))
    with pytest.raises(RemoteError, match=message):
        list(partner.respond([{"role": "user", "content": "hi"}]))


def test_what_is_not_our_kind_of_server() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(RemoteError, match="is a server running there"):
        RemoteChat("http://host", None, None, SamplingParams(), server(refuse))
    for odd in (
        httpx.Response(200, json={}),
        httpx.Response(200, text="hello"),
        httpx.Response(200, json={"data": []}),
    ):
        with pytest.raises(RemoteError, match="lists no model"):
            RemoteChat("http://host", None, None, SamplingParams(), server(lambda request, odd=odd: odd))


def test_api_key_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read --api-key-file"):
        RemoteChat("http://host", "m", str(tmp_path / "none"), SamplingParams())
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        RemoteChat("http://host", "m", str(tmp_path / "empty"), SamplingParams())
