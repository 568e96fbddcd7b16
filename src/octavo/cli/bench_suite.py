"""``octavo bench suite`` and ``octavo bench peers``: the fixed rows by which engines are measured, here and side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.choose import fetch, reconcile
from octavo.cli.flags import FlagGroup, Given, GroupedCommand, with_flags
from octavo.config import DEFAULT_MODEL, EngineConfig
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.bench.launched import LaunchedServer
    from octavo.bench.limits import ModelFacts
    from octavo.bench.peers import Peer
    from octavo.bench.suite import Row, SuiteTarget

Rows = Annotated[str, typer.Option(help="Only these rows: name,name (see docs/bench.md)", metavar="NAMES")]
Out = Annotated[Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")]
Markdown = Annotated[Path | None, typer.Option(help="Write the table as Markdown.", metavar="FILE")]
Seed = Annotated[int, typer.Option(help="Of the random prompts.", min=0)]


def register(bench: typer.Typer) -> None:
    """Add both to the ``bench`` group."""
    bench.command("suite", cls=GroupedCommand, short_help="Measure this engine by its fixed set of rows.")(suite)
    bench.command("peers", cls=GroupedCommand, short_help="The same rows against several servers, interleaved.")(peers)


@with_flags(FlagGroup(EngineConfig, "Engine (not with --url)", omit=("seed",)))
def suite(
    name: Annotated[str, typer.Argument(help="Which suite.", show_default=True)] = "cpu",
    model: Annotated[
        str | None, typer.Option(help=f"Catalogue name, folder, .gguf file or hf://org/name (default: {DEFAULT_MODEL})")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Measure the server there instead of one that is started here.", metavar="URL")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only the engine in this process, without HTTP.")] = False,
    http: Annotated[bool, typer.Option("--http", help="Only over HTTP.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rows and repetitions.")] = False,
    rows: Rows = "",
    repetitions: Annotated[int | None, typer.Option(help="Of every row (default: the suite's own).", min=1)] = None,
    seed: Seed = 0,
    out: Out = None,
    markdown: Markdown = None,
    *,
    given: Given,
) -> None:
    """Measure the engine by its fixed rows: in this process (offline), over HTTP, and what share of the machine's limit it is.

    The limit of every row is arithmetic on the model and a calibration of this machine measured beside it. With --url, the
    model behind it is unknown: no limits, unless --model names it.
    """
    from octavo.bench.suite import choose_rows, find_suite

    if offline and (http or url):
        raise ConfigError(f"--offline does not go with {'--http' if http else '--url'}; leave out one of them")
    if url and (flags := given.flags[EngineConfig]):
        raise ConfigError(f"{', '.join(flags)}: the server at {url} has its own; leave them out or leave out --url")
    found = find_suite(name)
    chosen = choose_rows(found, rows, quick=quick)
    count = repetitions or (found.quick_repetitions if quick else found.repetitions)
    job = _Job(name, chosen, count, seed)
    with ExitStack() as stack:
        facts, targets = _targets(stack, _Asked(model, url, not http and not url, not offline), given, job)
        result = _run_suite(job, targets, facts)
    _finish(result, out, markdown)


@dataclass
class _Job:
    """What will be measured; ``vocab_size`` and ``max_context`` are set when the model is known."""

    suite: str
    rows: tuple[Row, ...]
    repetitions: int
    seed: int
    num_threads: int | None = None
    vocab_size: int = 30_000
    max_context: int | None = None

    def options(self) -> Any:
        from octavo.bench.suite import SuiteOptions

        return SuiteOptions(
            repetitions=self.repetitions,
            seed=self.seed,
            vocab_high=min(30_000, self.vocab_size),
            max_context=self.max_context,
        )


@dataclass(frozen=True)
class _Asked:
    model: str | None
    url: str | None
    offline: bool
    http: bool


def _targets(stack: ExitStack, asked: _Asked, given: Given, job: _Job) -> tuple[ModelFacts | None, list[SuiteTarget]]:
    """Load what is to be measured; the stack ends it."""
    from octavo.bench.client.target import Target
    from octavo.bench.http_target import HttpTarget, probe

    targets: list[SuiteTarget] = []
    facts = None
    if asked.url is None or asked.model is not None:
        facts, path, model, config = _model(asked.model, given, job)
        if asked.offline:
            from octavo.cli.offline import OfflineTarget

            say(f"loading {model} in this process")
            targets.append(stack.enter_context(OfflineTarget(model, path, config)))
        if asked.http and asked.url is None:
            say(f"starting octavo serve {model}")
            server = stack.enter_context(_octavo_serve(model, given))
            say(f"{server.url} is ready after {server.ready_s:.1f} s")
            targets.append(HttpTarget("http", Target(url=server.url)))
    if asked.url is not None:
        target = Target(url=asked.url)
        targets.append(HttpTarget("http", target, probe(target)))
    return facts, targets


def _model(name: str | None, given: Given, job: _Job) -> tuple[ModelFacts | None, Path | None, str, EngineConfig]:
    """Find (or fetch) the model and settle what the engine will do with it on this machine."""
    from octavo.cli.offline import model_facts
    from octavo.engine.build import usable_hardware
    from octavo.engine.resolve import FAKE_MODEL, resolve
    from octavo.models.load import read_config

    model, config = reconcile(name, given.config(EngineConfig), DEFAULT_MODEL)
    path = None if model == "fake" else fetch(model).path
    described = FAKE_MODEL if path is None else read_config(path)
    settled = resolve(config, described, usable_hardware()).config
    job.num_threads, job.vocab_size, job.max_context = settled.num_threads, described.vocab_size, settled.max_model_len
    return model_facts(model, path, settled), path, model, config


@contextmanager
def _octavo_serve(model: str, given: Given) -> Iterator[LaunchedServer]:
    """A server of its own, with the flags of this command."""
    from octavo.bench.launched import LaunchedServer, free_port

    port = free_port()
    words = [sys.executable, "-m", "octavo.cli.main", "serve", "--port", str(port)]
    for key, value in given.flags[EngineConfig].items():
        flag = key.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    if model != "fake":
        words.append(model)
    elif "executor" not in given.flags[EngineConfig]:
        words += ["--executor", "fake"]
    with LaunchedServer("octavo", words, port) as server:
        yield server


def _run_suite(job: _Job, targets: list[SuiteTarget], facts: ModelFacts | None) -> Any:
    from octavo.bench.suite import SuiteResult, SuiteRun, ratios

    run = SuiteRun(targets, job.options(), lambda: _calibrate(job.num_threads), facts, say)
    run.run(job.rows)
    rows = run.results()
    return SuiteResult(
        suite=job.suite,
        seed=job.seed,
        model=facts,
        rows=rows,
        calibrations=run.calibrations,
        http_over_offline=ratios(rows, "http", "offline"),
        notes=[f"{name} was asked no more: {why}" for name, why in run.dead.items()],
        **_origin(),
    )


def peers(
    servers: Annotated[
        list[str] | None, typer.Argument(help="name=url, the first is compared with", metavar="NAME=URL...")
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(help="name='command {port} ...': start this server here, measure its start and memory, end it."),
    ] = None,
    rows: Rows = "",
    suite_name: Annotated[str, typer.Option("--suite", help="Whose rows.")] = "cpu",
    rounds: Annotated[int, typer.Option(help="Each is A B C; four or more give narrow intervals.", min=1)] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rows.")] = False,
    vocab_size: Annotated[int, typer.Option(help="Random token ids lie below it, for all servers.", min=101)] = 30_000,
    seed: Seed = 0,
    api_key_file: Annotated[
        list[str] | None, typer.Option(help="name=FILE: that server's API key is the first line of the file.")
    ] = None,
    out: Out = None,
    markdown: Markdown = None,
) -> None:
    """The same rows against several OpenAI-compatible servers, strictly interleaved (A B C A B C), side by side.

    All of them get the same prompts, in the most exact form that all take. Servers on one machine share it: those that are
    not asked should be idle. Example: octavo bench peers octavo=http://127.0.0.1:8000 llama=http://127.0.0.1:8080
    """
    from octavo.bench.peers import Peer, parse_pairs
    from octavo.bench.suite import choose_rows, find_suite

    urls, commands = parse_pairs(servers or [], "URL"), parse_pairs(start or [], "command")
    if both := sorted(urls.keys() & commands.keys()):
        raise ConfigError(f"{both[0]!r} is given as a URL and with --start; give it another name")
    if not urls and not commands:
        raise ConfigError("no server to measure; give name=url, or --start name='command {port}'")
    chosen = choose_rows(find_suite(suite_name), rows, quick=quick)
    keys = {name: _first_line(path) for name, path in parse_pairs(api_key_file or [], "FILE").items()}
    if unknown := sorted(keys.keys() - urls.keys() - commands.keys()):
        raise ConfigError(f"--api-key-file {unknown[0]}=...: there is no server of that name")
    job = _Job(suite_name, chosen, rounds, seed, vocab_size=vocab_size)
    found = [Peer(name=name, url=url) for name, url in urls.items()]
    with ExitStack() as stack:
        started = [_start(stack, name, command) for name, command in commands.items()]
        found += [peer for peer, _ in started]
        try:
            result = _run_peers(job, found, keys)
        finally:
            for peer, server in started:
                if server is not None:
                    peer.peak_rss_bytes = server.peak_rss_bytes or None
    _finish(result, out, markdown)


def _start(stack: ExitStack, name: str, command: str) -> tuple[Peer, LaunchedServer | None]:
    """A server that does not start is a peer that died; the others go on."""
    from octavo.bench.launched import LaunchedServer, command_words, free_port
    from octavo.bench.peers import Peer
    from octavo.errors import BenchError

    port = free_port()
    server = LaunchedServer(name, command_words(command, port), port)
    say(f"starting {name}: {command}")
    peer = Peer(name=name, url=server.url, command=command)
    try:
        stack.enter_context(server)
    except BenchError as error:
        say(error.message)
        peer.dead = error.message
        return peer, None
    peer.ready_s = server.ready_s
    say(f"{name} is ready after {server.ready_s:.1f} s")
    return peer, server


def _run_peers(job: _Job, found: list[Peer], keys: dict[str, str]) -> Any:
    from octavo.bench.peers import PeersResult, compare_peers

    compared = compare_peers(found, job.rows, job.options(), lambda: _calibrate(None), say, keys)
    return PeersResult(
        suite=job.suite,
        seed=job.seed,
        form=compared.form,
        peers=found,
        rows=compared.rows,
        ratios=compared.ratios,
        calibrations=compared.calibrations,
        **_origin(),
    )


def _calibrate(num_threads: int | None) -> Any:
    from octavo.bench.calibration import calibrate

    return calibrate(num_threads)


def _origin() -> dict[str, Any]:
    from octavo import __version__
    from octavo.bench import provenance

    return {
        "created": provenance.created_now(),
        "command": provenance.command_line(sys.argv[1:]),
        "commit": provenance.commit(),
        "octavo_version": __version__,
        "machine": provenance.machine_facts(),
    }


def _finish(result: Any, out: Path | None, markdown: Path | None) -> None:
    """Files first, then the table."""
    import msgspec

    from octavo.bench import suite_table as tables
    from octavo.bench.result import write_whole
    from octavo.bench.suite import SuiteResult
    from octavo.cli.output import stdout

    if out is not None:
        write_whole(out, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    page = tables.suite_markdown(result) if isinstance(result, SuiteResult) else tables.peers_markdown(result)
    if markdown is not None:
        write_whole(markdown, page.encode())
    console = stdout()
    if isinstance(result, SuiteResult):
        console.print(tables.suite_grid(result.rows, result.http_over_offline).rich())
    else:
        console.print(tables.servers_grid(result).rich())
        console.print(tables.peers_grid(result).rich())
    notes = tables.notes_lines(result.rows) if isinstance(result, SuiteResult) else []
    for line in [tables.machine_line(result.calibrations), *tables.limits_lines(result.rows), *notes, *result.notes]:
        console.print(line, markup=False, soft_wrap=True)


def _first_line(path: str) -> str:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    if not lines or not lines[0].strip():
        raise ConfigError(f"{path}: no API key in its first line")
    return lines[0].strip()


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
