"""The benchmarked server: URL, keys, request building."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from octavo.bench.client.options import ClientOptions
from octavo.bench.types import BenchRequest, LoadPlan
from octavo.errors import ConfigError

Endpoint = Literal["auto", "chat", "completions"]
DEFAULT_PORTS = {"http": 80, "https": 443}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenAI-compatible server. ``model`` empty: the first one that it lists."""

    url: str
    model: str = ""
    api_key: str = ""
    tenant_keys: dict[str, str] = {}  # tenant -> API key: servers tell tenants apart by key
    endpoint: Endpoint = "auto"  # chat for messages, completions for text and token ids
    ca_file: str = ""  # https: trust these certificates instead of the system's
    uds: str = ""  # connect to this Unix socket; the URL then only names the host

    @property
    def base(self) -> str:
        """The URL without /v1 and trailing slashes."""
        return self.url.rstrip("/").removesuffix("/v1").rstrip("/")


class Address(msgspec.Struct, frozen=True):
    host: str
    port: int
    tls: bool
    path: str  # before /v1, without a trailing slash


def parse_address(target: Target) -> Address:
    """Raises ``ConfigError`` for what is not http(s)://host[:port][/path]."""
    parts = urlsplit(target.base)
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"url {target.url!r}: {error}; expected http://host:port") from None
    plain = target.base.isascii() and target.base.isprintable() and " " not in target.base
    if not plain or parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.query or parts.username:
        raise ConfigError(f"url {target.url!r}: expected http://host:port or https://host:port")
    return Address(parts.hostname, port or DEFAULT_PORTS[parts.scheme], parts.scheme == "https", parts.path)


def authorization(target: Target, tenant: str = "") -> dict[str, str]:
    """Raises ``ConfigError`` for a key that no header can carry."""
    key = target.tenant_keys.get(tenant, target.api_key)
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("api_key: expected one line of printable ASCII")
    return {"Authorization": f"Bearer {key}"} if key else {}


class Prompt(msgspec.Struct, frozen=True):
    """What is sent as the prompt: the request's own, after the turns before it. Exactly one is set."""

    text: str | None = None
    token_ids: Sequence[int] | None = None
    messages: Sequence[dict[str, Any]] | None = None

    @classmethod
    def of(cls, request: BenchRequest) -> Prompt:
        return cls(request.text, request.token_ids, request.messages)

    def then(self, response: str, request: BenchRequest) -> Prompt:
        """The prompt of the turn ``request`` that follows this one and its ``response``."""
        if self.messages is not None and request.messages is not None:
            return Prompt(messages=[*self.messages, {"role": "assistant", "content": response}, *request.messages])
        assert self.text is not None and request.text is not None, "check_plan refuses other kinds"
        return Prompt(text=self.text + response + request.text)


class RequestWriter:
    """Requests to bytes. The head is made once for each tenant; a body is encoded when it is sent."""

    def __init__(self, target: Target, address: Address, options: ClientOptions) -> None:
        self._target = target
        self._address = address
        self._keeps_alive = options.keep_alive_s > 0
        self._heads: dict[tuple[bool, str], bytes] = {}
        self._encode = msgspec.json.Encoder().encode
        self._stream_options = {"include_usage": True}
        if options.continuous_usage:
            self._stream_options["continuous_usage_stats"] = True

    def post(self, request: BenchRequest, prompt: Prompt) -> bytes:
        body: dict[str, Any] = {"model": self._target.model}
        chat = self._target.endpoint == "chat" or prompt.messages is not None
        if not chat:
            body["prompt"] = prompt.token_ids if prompt.text is None else prompt.text
        elif prompt.messages is not None:
            body["messages"] = prompt.messages
        else:
            body["messages"] = [{"role": "user", "content": prompt.text}]
        body["max_tokens"] = request.max_tokens
        body["stream"] = True
        body["stream_options"] = self._stream_options
        if request.ignore_eos:
            body["ignore_eos"] = True
        if request.priority is not None:
            body["priority"] = request.priority
        body.update(request.extra)
        data = self._encode(body)
        return b"%b%d\r\n\r\n%b" % (self._head(chat, request.tenant), len(data), data)

    def get(self, path: str) -> bytes:
        head = self._lines(f"GET {self._address.path}{path} HTTP/1.1", authorization(self._target))
        return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")

    def _head(self, chat: bool, tenant: str) -> bytes:
        """Everything up to the number in ``Content-Length``."""
        head = self._heads.get((chat, tenant))
        if head is None:
            route = "/v1/chat/completions" if chat else "/v1/completions"
            headers = {
                **authorization(self._target, tenant),
                "Accept": "text/event-stream",
                "Content-Type": "application/json",
            }
            lines = self._lines(f"POST {self._address.path}{route} HTTP/1.1", headers)
            head = ("\r\n".join(lines) + "\r\nContent-Length: ").encode("latin-1")
            self._heads[chat, tenant] = head
        return head

    def _lines(self, first: str, headers: dict[str, str]) -> list[str]:
        address = self._address
        host = f"[{address.host}]" if ":" in address.host else address.host
        if address.port != DEFAULT_PORTS["https" if address.tls else "http"]:
            host = f"{host}:{address.port}"
        return [
            first,
            f"Host: {host}",
            "User-Agent: octavo-bench",
            *(() if self._keeps_alive else ("Connection: close",)),
            *(f"{name}: {value}" for name, value in headers.items()),
        ]


def check_plan(plan: LoadPlan, target: Target) -> None:
    """Raises ``ConfigError`` for a plan that could not be sent to its end."""
    if len(plan.send_s) != len(plan.requests):
        raise ConfigError(f"plan: {len(plan.requests)} requests but {len(plan.send_s)} send times; one each is needed")
    if not plan.requests:
        raise ConfigError("plan: no requests; give it a longer duration, a higher rate or a number of requests")
    for place, request in enumerate(plan.requests):
        name = f"plan: request {place}"
        if request.index != place:
            raise ConfigError(f"{name} has index {request.index}; requests are numbered by their place")
        kinds = [kind for kind in ("text", "token_ids", "messages") if getattr(request, kind) is not None]
        if len(kinds) != 1:
            raise ConfigError(f"{name} has {' and '.join(kinds) or 'no prompt'}; one of text, token_ids, messages")
        if (kinds == ["messages"] and target.endpoint == "completions") or (
            kinds == ["token_ids"] and target.endpoint == "chat"
        ):
            raise ConfigError(f"{name} has {kinds[0]}, which /v1 {target.endpoint} does not take; use endpoint auto")
        if request.after is not None:
            _check_turn(plan, request, kinds[0])
        elif plan.concurrency is None and plan.send_s[place] is None:
            raise ConfigError(f"{name} has no send time, follows no other, and there are no users of a closed loop")
    if plan.concurrency is not None and plan.concurrency < 1:
        raise ConfigError(f"plan: concurrency {plan.concurrency}; at least one user is needed")


def _check_turn(plan: LoadPlan, request: BenchRequest, kind: str) -> None:
    assert request.after is not None
    if not 0 <= request.after < request.index:
        raise ConfigError(f"plan: request {request.index} follows {request.after}; a turn follows an earlier request")
    if kind == "token_ids" or getattr(plan.requests[request.after], kind) is None:
        raise ConfigError(
            f"plan: request {request.index} ({kind}) cannot follow request {request.after}: the response comes as text, so "
            "both must be messages or both text"
        )
