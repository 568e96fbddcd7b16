"""``octavo serve``: the OpenAI-compatible server; flags over config file over defaults; ``--explain`` prints the result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from octavo.cli.flags import FlagGroup, Given, GroupedCommand, with_flags
from octavo.cli.model_argument import FAKE, fetch, reconcile
from octavo.config import DEFAULT_MODEL, EngineConfig, ServerConfig
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.engine.messages import ModelSource
    from octavo.engine.resolve import Resolution
    from octavo.server.run import ServerReady


def register(app: typer.Typer) -> None:
    app.command("serve", cls=GroupedCommand, short_help="Serve a model over the OpenAI API.")(serve)


@with_flags(FlagGroup(EngineConfig, "Engine"), FlagGroup(ServerConfig, "Server"))
def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            help=f"Registry name, folder with safetensors, .gguf file or hf://org/name (default: {DEFAULT_MODEL})",
            metavar="MODEL",
            show_default=DEFAULT_MODEL,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings, named like the flags: max_num_running = 32")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every setting, and why it is what it is; serve nothing.")
    ] = False,
    *,
    given: Given,
) -> None:
    """Serve a model over the OpenAI API.

    Flags override the config file, which overrides the defaults. Settings that are auto are chosen for this machine and
    this model; --explain says why.
    """
    from_file = given.read_file(config, also=("model",)) if config is not None else {}
    if model is None and "model" in from_file:
        model = _model_name(from_file["model"])
    engine, server = given.config(EngineConfig), given.config(ServerConfig)
    model, engine = reconcile(model, engine, DEFAULT_MODEL)
    if explain:
        _explain(model, engine, server, given)
        return
    raise typer.Exit(_run(model, engine, server))


def _model_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"model = {value!r}: expected the name of a model", param="model")
    return value


def _run(model: str, engine: EngineConfig, server: ServerConfig) -> int:
    """The engine's process begins with its imports, the longest of all, while this one goes on with its own."""
    from octavo.engine.process_handle import early_engine

    started_s = time.monotonic()
    with early_engine(engine.executor) as early:
        from octavo.observability.logs import setup_logging
        from octavo.server.run import ServePlan, run_server

        def ready(facts: ServerReady) -> None:
            key = ' -H "Authorization: Bearer $OCTAVO_KEY"' if server.api_key_file else ""
            for line in ready_lines(facts, time.monotonic() - started_s, key):
                _announce(line)

        setup_logging()
        return run_server(ServePlan(engine, server, model, _find, _announce, ready, early))


def ready_lines(facts: ServerReady, start_s: float, key: str) -> Iterator[str]:
    """What was loaded, how it can be asked. ``key``: what curl needs to be let in."""
    from octavo.cli.output import format_bytes

    info = facts.info
    weights = f", {format_bytes(info.weight_bytes)}" if info.weight_bytes else ""
    where = "the CPU by native kernels" if info.device == "native" else info.device
    how = "weights as stored" if info.dtype == "stored" else f"weights in {info.dtype}"
    yield f"ready in {start_s:.1f} s: {facts.model} on {where}, {how}{weights}"
    size = f", {format_bytes(info.kv_cache_bytes)} in {info.kv_dtype}" if info.kv_cache_bytes else ""
    num_tokens = info.num_blocks * info.block_size
    yield f"KV cache for {num_tokens} tokens{size}; context {info.max_model_len} tokens; documentation at {facts.url}/docs"
    if facts.has_chat_template:
        path, body = "chat/completions", '{"messages": [{"role": "user", "content": "Hello!"}]}'
    else:
        path, body = "completions", '{"prompt": "Once upon a time", "max_tokens": 64}'
    yield "try it, in another terminal:"
    yield f"  curl {facts.url}/v1/{path}{key} -H 'Content-Type: application/json' -d '{body}'"
    if facts.has_chat_template:
        yield f"  octavo chat --url {facts.url}" + (" --api-key-file FILE" if key else "")


def _find(name: str) -> ModelSource:
    from octavo.engine.messages import ModelSource

    found = fetch(name)
    return ModelSource(name=found.name, path=None if found.format == FAKE else str(found.path))


def _announce(line: str) -> None:
    print(line, flush=True)


def _explain(model: str, engine: EngineConfig, server: ServerConfig, given: Given) -> None:
    """The resolved settings as a table: value, and who decided."""
    from rich.table import Table

    from octavo.cli.output import stdout
    from octavo.engine.build import usable_hardware
    from octavo.engine.resolve import FAKE_MODEL, resolve
    from octavo.models.load import read_config

    found = fetch(model)
    resolution = resolve(engine, FAKE_MODEL if found.format == FAKE else read_config(found.path), usable_hardware())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("setting", "value", "why"):
        table.add_column(heading, overflow="fold")
    table.add_row("model", found.name, str(found.path) if found.format != FAKE else "no model", end_section=True)
    for kind, values in ((EngineConfig, resolution.config), (ServerConfig, server)):
        for name, value in msgspec.structs.asdict(values).items():
            shown = {True: "yes", False: "no", "": "-"}.get(value, str(value)) if not _is_number(value) else str(value)
            table.add_row(name, shown, _why(kind, name, value, resolution, given))
    stdout().print(table)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _why(kind: type[msgspec.Struct], name: str, value: object, resolution: Resolution, given: Given) -> str:
    if kind is EngineConfig and name in resolution.reasons:
        return f"auto: {resolution.reasons[name]}"
    if name in given.flags[kind]:
        return "the command line"
    if name == "executor" and value == FAKE:
        return "the model fake"
    return "the config file" if name in given.file.get(kind, {}) else "default"
