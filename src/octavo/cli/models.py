"""``octavo models list | pull | show | packed | clear-packed``: registry, downloads, memory estimate, packed-model cache."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.model_argument import fetch
from octavo.config import DEFAULT_MODEL, EngineConfig, from_mapping
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.models.registry import LocalModel, RegisteredModel

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def register(app: typer.Typer) -> None:
    models = typer.Typer(rich_markup_mode=None)
    models.command("list", short_help="What the model registry knows, and what is on this machine.")(list_models)
    models.command("pull", short_help="Fetch a model.")(pull)
    models.command("show", short_help="What a model is, and what it needs in memory.")(show)
    models.command("packed", short_help="Packed models that are kept for the next start.")(packed)
    models.command("clear-packed", short_help="Remove the packed models.")(clear_packed)
    app.add_typer(
        models, name="models", short_help="List, fetch and describe models.", help="List, fetch and describe models."
    )


def list_models(as_json: AsJson = False) -> None:
    """What the model registry knows, and what is on this machine.

    Besides these, every command takes a folder with safetensors, a .gguf file, or hf://org/name.
    """
    from octavo.models.registry import model_registry

    rows = [_entry_facts(entry) for entry in model_registry().entries]
    if as_json:
        _print_json(rows)
        return
    from rich.table import Table

    from octavo.cli.output import format_bytes, stdout

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True)
    for heading in ("here", "size", "architecture", "licence", "from"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        size = format_bytes(row["size_bytes"]) if row["size_bytes"] else "-"
        here = "yes" if row["fetched"] else "no"
        default = " (default)" if row["name"] == DEFAULT_MODEL else ""
        table.add_row(
            row["name"] + default, here, size, row["architecture"], row["licence"], row["source"].split(":")[0]
        )
    stdout().print(table)
    if sys.stdout.isatty():
        print("\noctavo models show NAME says more; octavo models pull NAME fetches one.")


def pull(
    model: Annotated[str, typer.Argument(help="Registry name or hf://org/name.", metavar="MODEL")],
    verify: Annotated[bool, typer.Option("--verify", help="Hash the file again even if it is here.")] = False,
) -> None:
    """Fetch a model into the cache folder, checked and whole; prints where it lies. Does nothing if it is there."""
    print(fetch(model, verify=verify).path)


def show(
    model: Annotated[
        str, typer.Argument(help="Registry name, folder, .gguf file or hf://org/name.", metavar="MODEL")
    ] = (DEFAULT_MODEL),
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of each request, prompt and output.")] = 2048,
    requests: Annotated[int, typer.Option(min=1, metavar="N", help="Requests that run at once.")] = 1,
    dtype: Annotated[str, typer.Option(metavar="TEXT", help="As for `octavo serve`.")] = "auto",
    kv_dtype: Annotated[str, typer.Option(metavar="TEXT", help="As for `octavo serve`.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """What a model is, and what it needs in memory. Nothing is loaded; a model that is not here is described only."""
    from octavo.models.registry import is_fetched, model_registry

    entry = model_registry().find(model)
    if entry is not None and not is_fetched(entry):
        facts = _entry_facts(entry) | {"next": f"octavo models pull {entry.name}"}
    else:
        facts = _model_facts(fetch(model), {"dtype": dtype, "kv_dtype": kv_dtype}, tokens, requests)
    if as_json:
        _print_json(facts)
    else:
        _print_facts(facts)


def packed(as_json: AsJson = False) -> None:
    """Packed models that are kept for the next start: weights in the order that the native CPU kernels read.

    The four most recently used stay; `octavo models clear-packed` removes all of them.
    """
    from octavo.folders import cache_folder
    from octavo.models.packed_cache import kept_files

    folder = cache_folder() / "packed"
    files = kept_files(folder)
    rows = [
        {
            "model": file.source,
            "weights": file.options,
            "size_bytes": file.size_bytes,
            "last_used": datetime.fromtimestamp(file.used_s, UTC).isoformat(timespec="seconds"),
            "path": str(file.path),
        }
        for file in files
    ]
    if as_json:
        _print_json(rows)
        return
    from rich.table import Table

    from octavo.cli.output import format_bytes, stdout

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    for heading in ("weights", "size", "last used"):
        table.add_column(heading, no_wrap=True)
    for file, row in zip(files, rows, strict=True):
        model = file.source or f"{file.path.name}: damaged, or of another version"
        table.add_row(model, file.options, format_bytes(file.size_bytes), str(row["last_used"]))
    stdout().print(table, markup=False)
    print(f"\n{len(files)} in {folder}, together {format_bytes(sum(file.size_bytes for file in files))}")


def clear_packed() -> None:
    """Remove the packed models; the next start of each packs it again. Running servers are not disturbed."""
    from octavo.cli.output import format_bytes
    from octavo.folders import cache_folder
    from octavo.models.packed_cache import clear

    folder = cache_folder() / "packed"
    print(f"{format_bytes(clear(folder))} freed in {folder}")


def _entry_facts(entry: RegisteredModel) -> dict[str, Any]:
    from octavo.models.registry import is_fetched

    return {
        "name": entry.name,
        "description": entry.description,
        "aliases": list(entry.aliases),
        "architecture": entry.architecture,
        "licence": entry.licence,
        "licence_url": entry.licence_url,
        "source": entry.source,
        "size_bytes": entry.size_bytes,
        "fetched": is_fetched(entry),
    }


def _model_facts(found: LocalModel, dtypes: dict[str, str], tokens: int, requests: int) -> dict[str, Any]:
    """From the files alone: shapes, bytes, and whether they fit into this machine."""
    from octavo.engine.build import usable_hardware
    from octavo.engine.resolve import FAKE_MODEL, resolve
    from octavo.models.load import read_config
    from octavo.models.memory import Workload, estimate

    config = read_config(found.path)
    if tokens > config.max_position:
        raise ConfigError(f"tokens = {tokens}, but {found.name} was made for {config.max_position} positions")
    hardware = usable_hardware()
    # The types do not depend on the model; one that fits everywhere lets this command describe one that does not.
    chosen = resolve(from_mapping(EngineConfig, dtypes), FAKE_MODEL, hardware).config
    need = estimate(
        config,
        dtype=chosen.dtype,
        kv_dtype=chosen.kv_dtype,
        workload=Workload(num_requests=requests, num_tokens=tokens),
        stored_bytes=sum(file.stat().st_size for file in _weight_files(found.path)),
    )
    room = hardware.gpus[0].memory_bytes if chosen.executor == "cuda" else hardware.available_bytes
    return {
        **(_entry_facts(found.entry) if found.entry else {"name": found.name, "architecture": config.architecture}),
        "path": str(found.path),
        "format": found.format,
        "stored_as": _stored_as(found.path),
        "num_parameters": config.num_parameters,
        "num_layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "num_kv_heads": config.num_kv_heads,
        "vocab_size": config.vocab_size,
        "max_position": config.max_position,
        "dtype": chosen.dtype,
        "kv_dtype": chosen.kv_dtype,
        "weight_bytes": need.weight_bytes,
        "kv_bytes_per_token": need.kv_bytes_per_token,
        "num_requests": requests,
        "num_tokens": tokens,
        "kv_cache_bytes": need.kv_cache_bytes,
        "activation_bytes": need.activation_bytes,
        "total_bytes": need.total_bytes,
        "memory_bytes": room,
        "fits": need.total_bytes <= room,
    }


def _weight_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.safetensors"))


def _stored_as(path: Path) -> str:
    """Tensor types in the files, by share of the weights: ``Q4_1 84 %, Q8_0 16 %``."""
    elements: dict[str, int] = {}
    for kind, shape in _gguf_tensors(path) if path.is_file() else _safetensors(path):
        elements[kind] = elements.get(kind, 0) + math.prod(shape)
    total = sum(elements.values()) or 1
    largest_first = sorted(elements.items(), key=lambda item: -item[1])
    return ", ".join(f"{kind} {100 * count / total:.0f} %" for kind, count in largest_first if count / total >= 0.005)


def _gguf_tensors(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from octavo.gguf.header import read_gguf_header

    for tensor in read_gguf_header(path).tensors.values():
        yield tensor.type_name, tensor.shape


def _safetensors(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from octavo.models.safetensors import read_header

    for file in sorted(folder.glob("*.safetensors")):
        for entry in read_header(file).values():
            yield entry.dtype, entry.shape


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_facts(facts: dict[str, Any]) -> None:
    """Two columns; the memory as a sum."""
    from rich.table import Table

    from octavo.cli.output import stdout

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _describe(facts):
        table.add_row(label, value)
    stdout().print(table, markup=False)


def _describe(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from octavo.cli.output import format_bytes, format_count

    yield "model", facts["name"]
    if "description" in facts:
        yield "", facts["description"]
        yield "licence", f"{facts['licence']}  {facts['licence_url']}"
        yield "source", facts["source"]
    if "next" in facts:
        yield "here", f"no; fetch it: {facts['next']}"
        return
    yield "here", facts["path"]
    yield "format", f"{facts['format']}, {facts['stored_as']}"
    yield (
        "architecture",
        f"{facts['architecture']}: {facts['num_layers']} layers of {facts['hidden_size']}, {facts['num_heads']} heads "
        f"({facts['num_kv_heads']} for keys and values), vocabulary {facts['vocab_size']}",
    )
    yield "parameters", format_count(facts["num_parameters"])
    yield "context", f"{facts['max_position']} tokens"
    yield "", ""
    how = "as stored" if facts["dtype"] == "stored" else f"in {facts['dtype']}"
    yield "memory", f"for {facts['num_requests']} x {facts['num_tokens']} tokens (--requests, --tokens)"
    yield "  weights", f"{format_bytes(facts['weight_bytes'])} {how}"
    yield (
        "  KV cache",
        f"{format_bytes(facts['kv_cache_bytes'])} in {facts['kv_dtype']}, {format_bytes(facts['kv_bytes_per_token'])} a token",
    )
    yield "  activations", format_bytes(facts["activation_bytes"])
    verdict = "fits" if facts["fits"] else "does NOT fit"
    yield "  total", f"{format_bytes(facts['total_bytes'])}; {verdict} here, {format_bytes(facts['memory_bytes'])} free"
