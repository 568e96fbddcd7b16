"""A server as the target of a suite: probe of its abilities, then plans sent by the load generator."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec

from octavo.bench.client.options import ClientOptions
from octavo.bench.client.target import Target, authorization
from octavo.bench.run import run_blocking
from octavo.bench.suite import PlanResponses
from octavo.bench.types import LoadPlan
from octavo.errors import BenchError, ConfigError

PROBE_TOKENS = 24
PROBE_TIMEOUT_S = 300.0  # the first request of a server may compile something
FORMS = ("tokens", "text", "messages")  # exact lengths first


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server takes. ``forms``: which prompts; ``ignore_eos``: accepted, and the response had the asked length."""

    model: str
    forms: tuple[str, ...]
    ignore_eos: bool
    usage: bool  # counts tokens at the end of a stream

    def describe(self) -> str:
        no = [] if self.ignore_eos else ["no ignore_eos"]
        no += [] if self.usage else ["no usage in streams: chunks are counted"]
        no += [] if "tokens" in self.forms else [f"no token-id prompts, only {' and '.join(self.forms)}"]
        return "; ".join(no) or "token ids, ignore_eos, usage"


def probe(target: Target) -> Abilities:
    """Ask the server for short responses in every form. Raises ``BenchError`` if it accepts none."""
    with httpx.Client(timeout=PROBE_TIMEOUT_S, headers=authorization(target)) as client:
        model = target.model or _first_model(client, target)
        found: dict[str, int | None] = {}
        refusals = []
        with_eos = True
        for form in FORMS:
            response = _ask(client, target, _body(model, form, ignore_eos=True), form)
            if isinstance(response, str):  # perhaps it was the unknown parameter
                refusals.append(f"{form}: {response}")
                response = _ask(client, target, _body(model, form, ignore_eos=False), form)
                with_eos = with_eos and isinstance(response, str)
            if not isinstance(response, str):
                found[form] = response
    if not found:
        raise BenchError(f"{target.base} accepts no kind of prompt ({'; '.join(refusals)[:300]})")
    counts = list(found.values())
    honoured = with_eos and all(count in (None, PROBE_TOKENS) for count in counts)
    return Abilities(model=model, forms=tuple(found), ignore_eos=honoured, usage=None not in counts)


def common_form(abilities: list[Abilities]) -> str:
    """The most exact form that all of them take, so that all are asked the same. Raises ``BenchError`` if there is none."""
    for form in FORMS:
        if all(form in one.forms for one in abilities):
            return form
    raise BenchError("no form of prompt is taken by all servers; compare them in smaller groups")


def asked_form(form: str, abilities: list[Abilities]) -> str:
    """``form``, if all of them take it; raises ``BenchError`` if not, and ``ConfigError`` for a word that is no form."""
    if form not in FORMS:
        raise ConfigError(f"form = {form!r}; known: {', '.join(FORMS)}", param="form")
    for one in abilities:
        if form not in one.forms:
            raise BenchError(f"{one.model} takes no prompts as {form}, only as {' and '.join(one.forms)}")
    return form


def stated_weights(target: Target) -> int:
    """Bytes of weights that the server says it holds (octavo's does, in /v1/models); 0: it does not say."""
    with httpx.Client(timeout=PROBE_TIMEOUT_S, headers=authorization(target)) as client:
        try:
            stated = client.get(f"{target.base}/v1/models").json()["data"][0]["weight_bytes"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError):
            return 0
    return stated if isinstance(stated, int) else 0


class HttpTarget:
    """Sends plans to one server; ``abilities`` say what must be left out of the requests."""

    def __init__(self, name: str, target: Target, abilities: Abilities | None = None) -> None:
        self.name, self.abilities = name, abilities
        self._target = target if abilities is None else msgspec.structs.replace(target, model=abilities.model)

    def run(self, plan: LoadPlan) -> PlanResponses:
        if self.abilities is not None and not self.abilities.ignore_eos:
            requests = [msgspec.structs.replace(one, ignore_eos=False) for one in plan.requests]
            plan = msgspec.structs.replace(plan, requests=requests)
        outcome = run_blocking(plan, self._target, ClientOptions(scrape_interval_s=0.0))
        return PlanResponses(
            records=outcome.records, invalid_reason=outcome.invalid_reason, stopped=outcome.stopped_by_user
        )


def _first_model(client: httpx.Client, target: Target) -> str:
    try:
        response = client.get(f"{target.base}/v1/models")
        response.raise_for_status()
        return str(response.json()["data"][0]["id"])
    except httpx.HTTPError as error:
        raise BenchError(f"cannot ask {target.base}/v1/models: {str(error) or type(error).__name__}") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise BenchError(
            f"{target.base}/v1/models lists no model; name the one it serves, if this is an OpenAI server"
        ) from None


def _body(model: str, form: str, *, ignore_eos: bool) -> dict[str, Any]:
    prompts: dict[str, dict[str, Any]] = {
        "tokens": {"prompt": list(range(200, 208))},
        "text": {"prompt": "Once upon a time"},
        "messages": {"messages": [{"role": "user", "content": "Tell a long story."}]},
    }
    body: dict[str, Any] = {"model": model, "max_tokens": PROBE_TOKENS, "temperature": 0.0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    return body | prompts[form] | ({"ignore_eos": True} if ignore_eos else {})


def _ask(client: httpx.Client, target: Target, body: dict[str, Any], form: str) -> int | str | None:
    """Output tokens by the server's usage (None: it gave no usage), or why there was no response."""
    route = "chat/completions" if form == "messages" else "completions"
    try:
        response = client.post(f"{target.base}/v1/{route}", json=body)
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    if response.status_code != 200:
        return f"{response.status_code} {' '.join(response.text.split())[:120]}"
    return _usage(response.text)


def _usage(text: str) -> int | str | None:
    tokens: int | None = None
    num_events = 0
    for line in text.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            event = json.loads(data)
        except ValueError:
            return f"malformed event {data[:60]!r}"
        if not isinstance(event, dict) or "error" in event:
            return data[:120]
        num_events += 1
        usage = event.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            tokens = usage["completion_tokens"]
    return tokens if num_events else "no event in the stream"
