"""Command lines that start a server to benchmark: octavo serve, llama-server, the user's own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from octavo.bench.launched_server import command_words
from octavo.errors import ConfigError
from octavo.hardware import detect

SLOTS = 64  # as many as the widest scenario of the suite has users
SLOT_TOKENS = 1280  # the longest prompt of the suite and its output

AtPort = Callable[[int], list[str]]  # the words of the command that listens there


def octavo_serve(port: int | str, model: str = "", flags: Mapping[str, object] | None = None) -> list[str]:
    """``flags``: settings of the engine by name, as given on the command line."""
    words = [sys.executable, "-m", "octavo.cli.main", "serve", "--port", str(port)]
    for key, value in (flags or {}).items():
        flag = key.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return [*words, model] if model else words


def own_command(command: str) -> AtPort:
    """Raises ``ConfigError`` for one without ``{port}``, before anything is started."""
    command_words(command, 1)
    return lambda port: command_words(command, port)


def known_command(name: str, model: str, find_path: Callable[[str], Path]) -> AtPort:
    """How an engine that is installed here is started. Raises ``ConfigError`` for one that is not known or not installed."""
    if name == "octavo":
        return lambda port: octavo_serve(port, model)
    if name == "llama.cpp":
        return _llama(model, find_path)
    raise ConfigError(f"{name}=auto: known are octavo, llama.cpp; start another one with --start {name}='...'")


def _llama(model: str, find_path: Callable[[str], Path]) -> AtPort:
    """One slot for each user; the rest is its own default."""
    program = shutil.which("llama-server")
    if program is None:
        raise ConfigError("llama.cpp=auto: there is no llama-server on the PATH; see docs/bench-peers.md")
    path = find_path(model)
    if path.suffix != ".gguf":
        raise ConfigError(f"llama.cpp=auto: {path.name} is not a .gguf file; name one with --model")
    words = [program, "-m", str(path), "-t", str(detect().num_cores), "-np", str(SLOTS), "-c", str(SLOTS * SLOT_TOKENS)]
    return lambda port: [*words, "--port", str(port)]
