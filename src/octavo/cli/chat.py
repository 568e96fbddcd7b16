"""``octavo chat``: a conversation in the terminal, with a model in this process or with a running server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from octavo.cli.flags import FlagGroup, Given, GroupedCommand, with_flags
from octavo.cli.generate import ENGINE_FLAGS, write
from octavo.cli.interrupt import Interrupt
from octavo.cli.model_argument import fetch, reconcile
from octavo.config import DEFAULT_MODEL, EngineConfig
from octavo.errors import ConfigError, InvalidRequestError, OctavoError
from octavo.types import SamplingParams

if TYPE_CHECKING:
    from octavo.cli.remote_chat import RemoteChat

COMMANDS = """\
/reset         forget the conversation
/system TEXT   say how the model should behave (nothing: say no more)
/exit          quit (Ctrl-D as well)
Ctrl-C         stop the response"""

Message = dict[str, str]


class Partner(Protocol):
    """The other side of a conversation: a model in this process, or a server."""

    name: str

    def respond(self, messages: list[Message]) -> Iterator[str]:
        """The response as it comes; closing the iterator ends it early."""
        ...


def register(app: typer.Typer) -> None:
    app.command("chat", cls=GroupedCommand, short_help="Talk with a model in the terminal.")(chat)


@with_flags(
    FlagGroup(SamplingParams, "Sampling", defaults={"temperature": 0.7}),
    FlagGroup(EngineConfig, "Engine (not with --url)", only=ENGINE_FLAGS),
)
def chat(
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Registry name, folder, .gguf file or hf://org/name (default: {DEFAULT_MODEL})", metavar="MODEL"
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Talk with this server instead, e.g. http://127.0.0.1:8000", metavar="URL")
    ] = None,
    api_key_file: Annotated[
        str | None, typer.Option(help="With --url: a file whose first line is the server's API key", metavar="FILE")
    ] = None,
    system: Annotated[str, typer.Option(help="How the model should behave.", metavar="TEXT")] = "",
    *,
    given: Given,
) -> None:
    """Talk with a model: in this process, or with a running server (--url).

    Type /help inside for what else can be typed. With a pipe, every line of stdin is a message.
    """
    params = given.config(SamplingParams)
    if url is None and api_key_file is not None:
        raise ConfigError("--api-key-file is for a server; give its --url as well")
    if url is not None:
        if engine := given.flags[EngineConfig]:
            raise ConfigError(
                f"{', '.join(engine)}: the server at {url} has its own; leave them out or leave out --url"
            )
        with _remote(url, model, api_key_file, params) as partner:
            Conversation(partner, system).run()
        return
    name, config = reconcile(model, given.config(EngineConfig), DEFAULT_MODEL)
    with _local(name, config, params) as partner:
        Conversation(partner, system).run()


class Conversation:
    """The loop: read a line, obey it or stream a response. History lives here; partners have no memory."""

    def __init__(self, partner: Partner, system: str = "") -> None:
        self._partner = partner
        self._system = system
        self._history: list[Message] = []
        self._interactive = sys.stdin.isatty() and sys.stdout.isatty()

    def run(self) -> None:
        """Until the end of input or /exit. From a pipe, the first error ends it (and is the program's)."""
        if self._interactive:
            import readline  # noqa: F401 - line editing and recall for input()

            print(f"{self._partner.name}. /help shows what can be typed besides messages.", file=sys.stderr)
        while (line := self._read()) is not None:
            if not line.strip():
                continue
            if line.startswith("/"):
                if not self._obey(line):
                    return
                continue
            try:
                self._stream_response(line)
            except OctavoError as error:
                if not self._interactive:
                    raise
                print(f"error: {error.message} (/reset forgets the conversation)", file=sys.stderr)

    def _read(self) -> str | None:
        """A line without its end, or None at the end of input."""
        if not self._interactive:
            return line.rstrip("\r\n") if (line := sys.stdin.readline()) else None
        try:
            return input("\n> ")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:  # drops the line that was being typed
            print("\n(/exit or Ctrl-D quits)", file=sys.stderr)
            return ""

    def _obey(self, line: str) -> bool:
        """A line that starts with a slash; False to quit. An unknown command is not sent to the model."""
        command, _, rest = line.partition(" ")
        match command:
            case "/exit" | "/quit":
                return False
            case "/reset":
                self._history = []
                self._note("the conversation is forgotten")
            case "/system":
                self._system = rest.strip()
                self._note(f"system: {self._system}" if self._system else "no system message")
            case "/help":
                self._note(COMMANDS)
            case _:
                self._unknown(command)
        return True

    def _unknown(self, command: str) -> None:
        message = f"unknown command {command}; known: /reset, /system TEXT, /exit, /help"
        if not self._interactive:
            raise InvalidRequestError(message)
        self._note(message)

    def _note(self, text: str) -> None:
        if self._interactive:
            print(text, file=sys.stderr)

    def _stream_response(self, line: str) -> None:
        """Stream one response. What was said before an interrupt stays in the history, as the user has read it."""
        asked = [*self._history, {"role": "user", "content": line}]
        system = [{"role": "system", "content": self._system}] if self._system else []
        said = ""
        with Interrupt() as interrupt, closing(self._partner.respond([*system, *asked])) as chunks:  # type: ignore[type-var]
            for text in chunks:
                said += text
                write(text)
                if interrupt.wanted:
                    break
        write("\n")
        if interrupt.wanted:
            self._note("(stopped)")
        self._history = [*asked, {"role": "assistant", "content": said}]


class LocalChat:
    """A model in this process."""

    def __init__(self, name: str, config: EngineConfig, params: SamplingParams) -> None:
        if name != "fake":
            fetch(name)
        from octavo.engine.llm import LLM

        self.name = name
        self._params = params
        self._llm = LLM(name, config)
        if not self._llm.tokenizer.has_chat_template:
            self._llm.close()
            raise InvalidRequestError(
                f"{name} has no chat template, so it cannot chat; continue a text with octavo generate --model {name}, "
                "or choose an instruction-tuned model"
            )

    def respond(self, messages: list[Message]) -> Iterator[str]:
        return self._llm.chat_stream(messages, self._params)

    def close(self) -> None:
        self._llm.close()


def _local(name: str, config: EngineConfig, params: SamplingParams) -> AbstractContextManager[LocalChat]:
    return closing(LocalChat(name, config, params))


def _remote(
    url: str, model: str | None, api_key_file: str | None, params: SamplingParams
) -> AbstractContextManager[RemoteChat]:
    from octavo.cli.remote_chat import RemoteChat

    return closing(RemoteChat(url, model, api_key_file, params))
