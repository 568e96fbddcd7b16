"""``octavo bench suite``: the fixed rows by which this engine is measured; what ``octavo bench peers`` shares with it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.flags import FlagGroup, Given, GroupedCommand, with_flags
from octavo.cli.model_argument import fetch, reconcile
from octavo.config import DEFAULT_MODEL, EngineConfig
from octavo.errors import ConfigError
from octavo.extras import require

if TYPE_CHECKING:
    from octavo.bench.launched_server import LaunchedServer
    from octavo.bench.limits import ModelFacts
    from octavo.bench.scenarios import Scenario
    from octavo.bench.suite import SuiteTarget

Rows = Annotated[str, typer.Option(help="Only these rows: name,name (see docs/bench.md)", metavar="NAMES")]
Out = Annotated[Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")]
Markdown = Annotated[Path | None, typer.Option(help="Write the table as Markdown.", metavar="FILE")]
Seed = Annotated[int, typer.Option(help="Of the random prompts.", min=0)]


def register(bench: typer.Typer) -> None:
    """Add both to the ``bench`` group."""
    from octavo.cli.bench_peers import peers

    bench.command("suite", cls=GroupedCommand, short_help="Measure this engine by its fixed set of rows.")(suite)
    bench.command("peers", cls=GroupedCommand, short_help="The same rows against several servers, interleaved.")(peers)


@with_flags(FlagGroup(EngineConfig, "Engine (not with --url)", omit=("seed",)))
def suite(
    name: Annotated[str, typer.Argument(help="Which suite.", show_default=True)] = "cpu",
    model: Annotated[
        str | None, typer.Option(help=f"Registry name, folder, .gguf file or hf://org/name (default: {DEFAULT_MODEL})")
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
    check_packages()
    from octavo.bench.scenarios import choose_scenarios, find_suite

    if offline and (http or url):
        raise ConfigError(f"--offline does not go with {'--http' if http else '--url'}; leave out one of them")
    if url and (flags := given.flags[EngineConfig]):
        raise ConfigError(f"{', '.join(flags)}: the server at {url} has its own; leave them out or leave out --url")
    found = find_suite(name)
    chosen = choose_scenarios(found, rows, quick=quick)
    count = repetitions or (found.quick_repetitions if quick else found.repetitions)
    job = Job(name, chosen, count, seed)
    with measuring() as ended, ExitStack() as stack:
        facts, targets = _targets(stack, _Asked(model, url, not http and not url, not offline), given, job)
        result = _run_suite(job, targets, facts, out)
    finish(result, out, markdown)
    raise typer.Exit(ended() or (0 if result.complete else 1))


@contextmanager
def measuring() -> Iterator[Callable[[], int]]:
    """Being told to end (SIGTERM) is a Ctrl-C: what was measured is kept, what was started here is stopped.

    Gives what the signal makes of the exit code: 0 without one.
    """
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        # A shell's background job, or one under nohup, starts with SIGINT ignored; its default action would end us at once.
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield lambda: 128 + received[0] if received else 0
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class Job:
    """What will be measured; ``vocab_size`` and ``max_context`` are set when the model is known."""

    suite: str
    rows: tuple[Scenario, ...]
    repetitions: int
    seed: int
    form: str = "tokens"
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
            form=self.form,
        )


@dataclass(frozen=True)
class _Asked:
    model: str | None
    url: str | None
    offline: bool
    http: bool


def _targets(stack: ExitStack, asked: _Asked, given: Given, job: Job) -> tuple[ModelFacts | None, list[SuiteTarget]]:
    """Load what is to be measured; the stack ends it."""
    from octavo.bench.client.target import Target
    from octavo.bench.http_target import HttpTarget, probe, stated_weights

    targets: list[SuiteTarget] = []
    facts = None
    if asked.url is None or asked.model is not None:
        facts, path, model, config = _model(asked.model, given, job)
        if asked.offline:
            from octavo.bench.offline_target import OfflineTarget

            say(f"loading {model} in this process")
            engine = stack.enter_context(OfflineTarget(model, path, config))
            targets.append(engine)
            facts = _as_served(facts, engine.info.weight_bytes, "the engine")
        if asked.http and asked.url is None:
            say(f"starting octavo serve {model}")
            server = stack.enter_context(_octavo_serve(model, given))
            say(f"{server.url} is ready after {server.ready_s:.1f} s")
            targets.append(HttpTarget("http", Target(url=server.url)))
            if not asked.offline:
                facts = _as_served(facts, stated_weights(Target(url=server.url)), "the server")
    if asked.url is not None:
        target = Target(url=asked.url)
        targets.append(HttpTarget("http", target, probe(target)))
        stated = stated_weights(target)
        facts = _as_served(facts, stated or _stored_bytes(asked.model), "the server" if stated else "the file")
    return facts, targets


def _as_served(facts: ModelFacts | None, num_bytes: int, by: str) -> ModelFacts | None:
    from octavo.bench.limits import as_served

    return None if facts is None else as_served(facts, num_bytes, by)


def _stored_bytes(model: str | None) -> int:
    """Of all tensors in a GGUF file; 0 for other models."""
    from octavo.gguf.header import read_gguf_header

    path = None if model in (None, "fake") else fetch(model).path
    if path is None or path.suffix != ".gguf":
        return 0
    return sum(tensor.num_bytes for tensor in read_gguf_header(path).tensors.values())


def _model(name: str | None, given: Given, job: Job) -> tuple[ModelFacts | None, Path | None, str, EngineConfig]:
    """Find (or fetch) the model and settle what the engine will do with it on this machine."""
    from octavo.bench.offline_target import model_facts
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
    from octavo.bench.launched_server import LaunchedServer, free_port

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


def _run_suite(job: Job, targets: list[SuiteTarget], facts: ModelFacts | None, out: Path | None) -> Any:
    """Writes what there is after every group."""
    from octavo.bench.suite import SuiteResult, SuiteRun, ratios

    known = origin()

    def result(run: SuiteRun) -> SuiteResult:
        rows = run.results()
        return SuiteResult(
            suite=job.suite,
            seed=job.seed,
            complete=run.complete,
            model=facts,
            rows=rows,
            calibrations=run.calibrations,
            http_over_offline=ratios(rows, "http", "offline"),
            notes=[f"{name} was asked no more: {why}" for name, why in run.dead.items()],
            **known,
        )

    weight_bytes = facts.weight_bytes if facts is not None else 0
    run = SuiteRun(targets, job.options(), lambda: _calibrate(job.num_threads, weight_bytes), facts, say)
    run.run(job.rows, lambda run: write(out, result(run)))
    return result(run)


def check_packages() -> None:
    """Before anything is started: raises ``MissingPackageError`` where what measures is not installed."""
    require("torch", "the calibration of the machine needs")
    require("scipy", "`octavo bench` needs")


def _calibrate(num_threads: int | None, weight_bytes: int) -> Any:
    from octavo.bench.calibration import calibrate

    return calibrate(num_threads, weight_bytes=weight_bytes)


def origin() -> dict[str, Any]:
    from octavo import __version__
    from octavo.bench import provenance

    return {
        "created": provenance.created_now(),
        "command": provenance.command_line(sys.argv[1:]),
        "commit": provenance.commit(),
        "octavo_version": __version__,
        "machine": provenance.machine_facts(),
    }


def write(out: Path | None, result: Any) -> None:
    """As JSON, whole or not at all."""
    import msgspec

    from octavo.bench.result import write_whole

    if out is not None:
        write_whole(out, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def finish(result: Any, out: Path | None, markdown: Path | None) -> None:
    """Files first, then the table."""
    from octavo.bench import suite_table as tables
    from octavo.bench.result import write_whole
    from octavo.bench.suite import SuiteResult
    from octavo.cli.output import stdout

    write(out, result)
    page = tables.suite_markdown(result) if isinstance(result, SuiteResult) else tables.peers_markdown(result)
    if markdown is not None:
        write_whole(markdown, page.encode())
    console = stdout()
    if isinstance(result, SuiteResult):
        console.print(tables.suite_grid(result.rows, result.http_over_offline).rich())
    else:
        console.print(tables.servers_grid(result).rich())
        console.print(tables.peers_grid(result).rich())
    notes = tables.notes_lines(result.rows)
    if isinstance(result, SuiteResult):
        console.print(tables.model_line(result.model), markup=False, soft_wrap=True)
    for line in [tables.machine_line(result.calibrations), *tables.limits_lines(result.rows), *notes, *result.notes]:
        console.print(line, markup=False, soft_wrap=True)


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
