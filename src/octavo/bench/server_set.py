"""The benchmarked servers of a command by label: those at a URL and those started here, which end with the context."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from octavo.bench.client.target import Target
from octavo.bench.launched_server import LaunchedServer, command_words, free_port
from octavo.bench.server_commands import octavo_serve
from octavo.bench.suite import Say


@dataclass(frozen=True)
class Servers:
    """Label -> URL, label -> command line that starts it here. Both empty: octavo serve, started here."""

    urls: dict[str, str]
    commands: dict[str, str]
    model: str
    api_keys: dict[str, str]  # by label


@contextmanager
def open_targets(servers: Servers, name: str, say: Say) -> Iterator[dict[str, Target]]:
    """By label, in the order given; ``name``: the label of the default server. Raises ``BenchError`` if one does not start."""
    keys = servers.api_keys
    found = {one: Target(url=url, model=servers.model, api_key=keys.get(one, "")) for one, url in servers.urls.items()}
    commands = dict(servers.commands)
    if not found and not commands:
        commands = {name: shlex.join(octavo_serve("{port}", servers.model))}
    with ExitStack() as stack:
        for one, command in commands.items():
            found[one] = Target(url=_start(stack, one, command, say), api_key=keys.get(one, ""))
        yield found


def _start(stack: ExitStack, name: str, command: str, say: Say) -> str:
    port = free_port()
    say(f"{name}: starting {command}")
    server = stack.enter_context(LaunchedServer(name, command_words(command, port), port))
    say(f"{name} is ready at {server.url} after {server.ready_s:.1f} s")
    return server.url
