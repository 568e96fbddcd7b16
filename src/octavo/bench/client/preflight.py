"""The check before a run: the server is reachable and serves the model."""

from __future__ import annotations

import httpx
import msgspec

from octavo.bench.client.connection_pool import tls_context
from octavo.bench.client.metrics import snapshot
from octavo.bench.client.target import Target, authorization, parse_address
from octavo.errors import BenchError

TIMEOUT_S = 10.0


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    target: Target  # with the model's name
    metrics: dict[str, float]  # empty: the server offers none


async def preflight(target: Target) -> Ready:
    """Raises ``BenchError`` with one clear message if nothing can be measured there, ``ConfigError`` for a malformed URL."""
    parse_address(target)
    async with _client(target) as client:
        try:
            response = await client.get(f"{target.base}/v1/models", headers=authorization(target))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BenchError(
                f"cannot reach {target.base}: {str(error) or type(error).__name__}; is a server running there? (octavo serve)"
            ) from None
        target = msgspec.structs.replace(target, model=_model(target, response))
        return Ready(target=target, metrics=await _metrics(target, client))


async def read_metrics(target: Target) -> dict[str, float]:
    """The server's metrics now; empty if it has none or is gone."""
    async with _client(target) as client:
        return await _metrics(target, client)


def _client(target: Target) -> httpx.AsyncClient:
    verify = tls_context(target, parse_address(target)) or False  # no TLS, so no certificates to load
    transport = httpx.AsyncHTTPTransport(uds=target.uds) if target.uds else None
    return httpx.AsyncClient(verify=verify, transport=transport, timeout=TIMEOUT_S)


def _model(target: Target, response: httpx.Response) -> str:
    """The name to ask for: the given one if the server has it, else the first that it lists."""
    if response.status_code in (401, 403):
        raise BenchError(f"{target.base}: {response.status_code}, the server wants another API key")
    if response.status_code == 404 and target.model:
        return target.model  # a server without this route may still respond
    try:
        names = [str(card["id"]) for card in response.json()["data"]]
        response.raise_for_status()
    except (ValueError, KeyError, TypeError, httpx.HTTPStatusError):
        raise BenchError(
            f"{target.base}/v1/models: {response.status_code} {response.text[:200]!r}; is this an OpenAI-compatible server?"
        ) from None
    if not target.model and not names:
        raise BenchError(f"{target.base}/v1/models lists no model; give its name")
    if target.model and names and target.model not in names:
        raise BenchError(f"{target.base} has no model {target.model!r}; it lists {', '.join(names[:10])}")
    return target.model or names[0]


async def _metrics(target: Target, client: httpx.AsyncClient) -> dict[str, float]:
    try:
        response = await client.get(f"{target.base}/metrics", headers=authorization(target))
    except httpx.HTTPError:
        return {}
    return snapshot(response.text) if response.status_code == 200 else {}
