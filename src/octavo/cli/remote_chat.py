"""Chat over HTTP with any server that has OpenAI's streaming chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from octavo.cli.api_key_file import read_api_key
from octavo.errors import ConfigError, OctavoError
from octavo.types import SamplingParams

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0  # a long prompt on a busy server


class RemoteError(OctavoError):
    """The server refused, failed or is not there."""


class RemoteChat:
    """Talks to ``url``; ``model`` None: the first one that the server lists. ``client`` is given by tests."""

    def __init__(
        self,
        url: str,
        model: str | None,
        api_key_file: str | None,
        params: SamplingParams,
        client: httpx.Client | None = None,
    ) -> None:
        base = url.rstrip("/").removesuffix("/v1")
        if not base.startswith(("http://", "https://")):
            raise ConfigError(f"--url {url!r}: expected http://host:port")
        self._client = client or httpx.Client(timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))
        self._base = base
        self._headers = _authorization(api_key_file)
        self._fields = {name: value for name, value in msgspec.to_builtins(params).items() if value is not None}
        self._model = model or self._first_model()
        self.name = f"{self._model} at {base}"

    def respond(self, messages: list[dict[str, str]]) -> Iterator[str]:
        """Raises ``RemoteError`` with the server's own message. Closing the iterator closes the connection."""
        body = {**self._fields, "model": self._model, "messages": messages, "stream": True}
        try:
            with self._client.stream(
                "POST", f"{self._base}/v1/chat/completions", json=body, headers=self._headers
            ) as response:
                if response.status_code != httpx.codes.OK:
                    response.read()
                    raise RemoteError(f"{self._base}: {_explain(response)}")
                yield from _contents(response.iter_lines())
        except httpx.HTTPError as error:
            raise RemoteError(f"{self._base}: {_reason(error)}") from None

    def close(self) -> None:
        """Close the HTTP connections."""
        self._client.close()

    def _first_model(self) -> str:
        try:
            response = self._client.get(f"{self._base}/v1/models", headers=self._headers)
            if response.status_code != httpx.codes.OK:
                raise RemoteError(f"{self._base}: {_explain(response)}")
            return str(response.json()["data"][0]["id"])
        except httpx.HTTPError as error:
            raise RemoteError(f"{self._base}: {_reason(error)}; is a server running there? (octavo serve)") from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise RemoteError(f"{self._base}/v1/models lists no model; is this an OpenAI-compatible server?") from None


def _authorization(api_key_file: str | None) -> dict[str, str]:
    return {} if api_key_file is None else {"Authorization": f"Bearer {read_api_key(api_key_file)}"}


def _contents(lines: Iterator[str]) -> Iterator[str]:
    """The text in the server-sent events of a chat completion."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[len("data:") :].strip()
        if data == "[DONE]":
            return
        try:
            event: Any = json.loads(data)
        except ValueError:
            raise RemoteError(f"the server sent an event that is not JSON: {data[:80]!r}") from None
        if "error" in event:
            raise RemoteError(str(event["error"].get("message", event["error"])))
        for choice in event.get("choices", []):
            if content := choice.get("delta", {}).get("content"):
                yield content


def _explain(response: httpx.Response) -> str:
    try:
        return f"{response.status_code}: {response.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason_phrase}"


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
