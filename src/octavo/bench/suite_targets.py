"""Targets of a suite: the engine in this process, octavo serve started here, a server at a URL; the model's limits there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from octavo.bench.client.target import Target
from octavo.bench.http_target import HttpTarget, probe, stated_weights
from octavo.bench.launched_server import LaunchedServer, free_port
from octavo.bench.limits import ModelFacts, as_served
from octavo.bench.offline_target import MeasuredModel, OfflineTarget
from octavo.bench.server_commands import octavo_serve
from octavo.bench.suite import Say, SuiteTarget
from octavo.gguf.header import read_gguf_header


class SuiteTargets(NamedTuple):
    targets: list[SuiteTarget]
    facts: ModelFacts | None  # of the model with the weights as served; None: unknown, no limits


class Here(NamedTuple):
    """What of this machine is measured: the engine in this process, over HTTP, or both. ``flags``: the engine's, as given."""

    offline: bool
    http: bool
    flags: Mapping[str, object]


def open_here(stack: ExitStack, here: Here, model: MeasuredModel, say: Say) -> SuiteTargets:
    """Load and start what is to be measured; the stack ends it. Raises ``OctavoError`` for what does not start."""
    targets: list[SuiteTarget] = []
    facts = model.facts
    if here.offline:
        say(f"loading {model.name} in this process")
        engine = stack.enter_context(OfflineTarget(model.name, model.path, model.config))
        targets.append(engine)
        facts = _served(facts, engine.info.weight_bytes, "the engine")
    if here.http:
        say(f"starting octavo serve {model.name}")
        server = stack.enter_context(_server(model, here.flags))
        say(f"{server.url} is ready after {server.ready_s:.1f} s")
        target = Target(url=server.url)
        targets.append(HttpTarget("http", target))
        if not here.offline:
            facts = _served(facts, stated_weights(target), "the server")
    return SuiteTargets(targets, facts)


def open_url(url: str, model: MeasuredModel | None) -> SuiteTargets:
    """A server that runs already. ``model``: what it is said to serve. Raises ``OctavoError`` if it does not respond."""
    target = Target(url=url)
    targets: list[SuiteTarget] = [HttpTarget("http", target, probe(target))]
    if model is None:
        return SuiteTargets(targets, None)
    stated = stated_weights(target)
    num_bytes, by = (stated, "the server") if stated else (_stored_bytes(model.path), "the file")
    return SuiteTargets(targets, _served(model.facts, num_bytes, by))


def _server(model: MeasuredModel, flags: Mapping[str, object]) -> LaunchedServer:
    """A server of its own, with the flags of this command."""
    port = free_port()
    if model.path is None:
        return LaunchedServer("octavo", octavo_serve(port, flags={"executor": "fake", **flags}), port)
    return LaunchedServer("octavo", octavo_serve(port, model.name, flags), port)


def _served(facts: ModelFacts | None, num_bytes: int, by: str) -> ModelFacts | None:
    return None if facts is None else as_served(facts, num_bytes, by)


def _stored_bytes(path: Path | None) -> int:
    """Of all tensors in a GGUF file; 0 for other models."""
    if path is None or path.suffix != ".gguf":
        return 0
    return sum(tensor.num_bytes for tensor in read_gguf_header(path).tensors.values())
