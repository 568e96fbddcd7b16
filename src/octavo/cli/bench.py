"""``octavo bench``: measure any OpenAI-compatible server, compare results, and the engine's own suite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli import bench_suite
from octavo.cli.output import stderr, stdout
from octavo.config import DEFAULT_MODEL
from octavo.errors import BenchError, ConfigError

if TYPE_CHECKING:
    from octavo.bench.client.target import Target
    from octavo.bench.model import Run, Slo
    from octavo.bench.plan import PlanOptions

Url = Annotated[str, typer.Option(help="The server; without it `octavo serve` is started for the run.", metavar="URL")]
Model = Annotated[
    str, typer.Option(help=f"Model to ask for (with --url: default the first listed; else default: {DEFAULT_MODEL})")
]
Workload = Annotated[
    str, typer.Option(help="name:key=value,...; an unknown name lists all, e.g. chat, trace:azure-conv")
]
Arrivals = Annotated[str, typer.Option(help="constant, poisson, gamma, ramp, stepped, diurnal, closed:users=8 ...")]
Duration = Annotated[
    str, typer.Option(help="Stop sending after this long, e.g. 60s or 2m; 0: no limit", metavar="TIME")
]
NumRequests = Annotated[int, typer.Option(help="How many requests; 0: as many as the duration holds", min=0)]
SloText = Annotated[str, typer.Option("--slo", help="ttft=500ms,tpot=50ms,e2e=10s", metavar="LIMITS")]
Seed = Annotated[int, typer.Option(help="Of the whole plan: the same seed sends the same requests.", min=0)]
ApiKeyFile = Annotated[str, typer.Option(help="File whose first line is the server's API key", metavar="FILE")]
Form = Annotated[
    str, typer.Option(help="What prompts are: tokens (exact lengths), text, messages; auto: the workload's own")
]
VocabSize = Annotated[int, typer.Option(help="Random token ids lie below it", min=101)]
Name = Annotated[str, typer.Option(help="Label of the result, for compare")]


def register(app: typer.Typer) -> None:
    bench = typer.Typer(rich_markup_mode=None)
    bench.command("run", short_help="Send one workload, say what came back and how sure that is.")(run)
    bench.command("sweep", short_help="Latency against load: the knee, and the highest rate that keeps an SLO.")(sweep)
    bench.command("compare", short_help="Is B faster than A, by how much, how sure?")(compare)
    bench.command("schema", short_help="The JSON Schema of a result file.")(schema)
    bench_suite.register(bench)
    about = "Measure any OpenAI-compatible server, and this engine."
    app.add_typer(bench, name="bench", short_help=about, help=about)


def run(
    url: Url = "",
    model: Model = "",
    workload: Workload = "chat",
    rate: Annotated[float, typer.Option(help="Requests per second; 0: the workload's or the trace's own", min=0)] = 0.0,
    arrivals: Arrivals = "",
    duration: Duration = "60s",
    num_requests: NumRequests = 0,
    speed: Annotated[float, typer.Option(help="Replay a trace this many times as fast; 0: as it was", min=0)] = 0.0,
    slo: SloText = "",
    seed: Seed = 0,
    form: Form = "auto",
    vocab_size: VocabSize = 30_000,
    repeat: Annotated[int, typer.Option(help="Runs one after another, each with fresh prompts", min=1)] = 1,
    api_key_file: ApiKeyFile = "",
    name: Name = "run",
    out: Annotated[Path, typer.Option(help="The result, one JSON file a run", metavar="FILE")] = Path("result.json"),
    rows: Annotated[Path | None, typer.Option(help="Per-request rows as .csv or .parquet", metavar="FILE")] = None,
) -> None:
    """Send one workload to a server.

    Every latency counts from the moment a request was due, not from when the client got round to sending it. A run
    whose client could not keep up, or whose server went away, is marked invalid, with the reason; what was measured is
    on disk all the same.
    """
    from octavo.bench.result import write_rows

    promise = _slo(slo)
    options = _plan_options(seed, rate, speed, duration, num_requests)
    options = _prompts(options, form, vocab_size)
    done: list[Run] = []
    with _target(url, model, api_key_file) as target:
        for i in range(repeat):
            path = out if repeat == 1 else out.with_stem(f"{out.stem}-{i + 1}")
            spec = (workload, arrivals or None, _repeated(options, i))
            done.append(_one_run(target, spec, promise, (name, path)))
            if not done[-1].valid and "stopped by the user" in (done[-1].invalid_reason or ""):
                break
    if rows is not None:
        write_rows(done, rows)
    raise typer.Exit(0 if all(one.valid for one in done) else 1)


def sweep(
    rates: Annotated[str, typer.Option(help="Requests per second: 1,2,4,8", metavar="RATES")],
    url: Url = "",
    model: Model = "",
    workload: Workload = "chat",
    duration: Duration = "60s",
    slo: SloText = "",
    seed: Seed = 0,
    form: Form = "auto",
    vocab_size: VocabSize = 30_000,
    api_key_file: ApiKeyFile = "",
    name: Name = "sweep",
    out: Annotated[Path, typer.Option(help="One result per rate: FILE-RATE.json", metavar="FILE")] = Path("sweep.json"),
) -> None:
    """Latency against load at the given rates, from the lowest; with --slo also a bisection to the highest rate that keeps it."""
    from octavo.bench import sweep as sweeping

    wanted, promise = _rates(rates), _slo(slo)
    counter = iter(range(10**9))
    with _target(url, model, api_key_file) as target:

        def run_at(rate: float) -> Run:
            options = _prompts(_plan_options(seed, rate, 0.0, duration, 0), form, vocab_size)
            options = _repeated(options, next(counter))
            path = out.with_stem(f"{out.stem}-{rate:g}")
            return _one_run(target, (workload, "poisson", options), promise, (f"{name} {rate:g}/s", path))

        measured = sweeping.sweep(run_at, wanted)
        knee = sweeping.knee_of(measured)
        stdout().print(f"knee: {knee}" if knee is not None else "knee: not within these rates")
        if slo:
            found = sweeping.find_max_rate(run_at, promise, min(wanted), max(wanted))
            stdout().print(_max_rate(found.rate, found.beyond, slo))


def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Result files; those of one label belong together", metavar="A.json B.json ...")
    ],
    label: Annotated[list[str] | None, typer.Option(help="One per file, instead of the names in the files")] = None,
    seed: Seed = 0,
) -> None:
    """Is B faster than A? Runs are grouped by the name they were given (--name); the first one is the baseline."""
    from octavo.bench.compare import compare as compare_runs
    from octavo.bench.compare_table import render
    from octavo.bench.result import load

    if label and len(label) != len(results):
        raise ConfigError(f"{len(results)} results but {len(label)} labels; give one --label for each file")
    groups: dict[str, list[Run]] = {}
    for i, path in enumerate(results):
        one = load(path)
        groups.setdefault(label[i] if label else one.name, []).append(one)
    stdout().print(render(compare_runs(groups, seed=seed)))


def schema() -> None:
    """Print the JSON Schema of a result file."""
    from octavo.bench.result import published_schema

    typer.echo(published_schema(), nl=False)


def _one_run(target: Target, spec: tuple[str, str | None, PlanOptions], slo: Slo, label: tuple[str, Path]) -> Run:
    """Plan, send, summarise, write, show."""
    from octavo.bench.assemble import Context, assemble
    from octavo.bench.client.options import ClientOptions
    from octavo.bench.live import live_view
    from octavo.bench.plan import make_plan
    from octavo.bench.result import save
    from octavo.bench.run import run_blocking
    from octavo.bench.run_table import run_lines, run_table

    plan = make_plan(*spec)
    name, path = label
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = path.with_suffix(".journal.jsonl")
    with live_view(name) as observer:
        outcome = run_blocking(plan, target, ClientOptions(journal=str(journal)), observer)
    result = assemble(plan, outcome, Context(name, target.url, slo, sys.argv[1:]))
    save(result, path)
    journal.unlink(missing_ok=True)  # everything in it is in the result now
    console = stdout()
    title, *lines = run_lines(result)
    console.print(title, markup=False, soft_wrap=True)
    console.print(run_table(result))
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    stderr().print(f"result: {path}")
    return result


@contextmanager
def _target(url: str, model: str, api_key_file: str) -> Iterator[Target]:
    """The server at ``url``, or one of our own for as long as the context is open."""
    from octavo.bench.client.target import Target

    key = _first_line(api_key_file) if api_key_file else ""
    if url:
        yield Target(url=url, model=model, api_key=key)
        return
    from octavo.bench.launched import LaunchedServer, free_port

    port = free_port()
    words = [sys.executable, "-m", "octavo.cli.main", "serve", *([model] if model else []), "--port", str(port)]
    with LaunchedServer("octavo serve", words, port) as server:
        stderr().print(f"octavo serve is ready at {server.url} after {server.ready_s:.1f} s")
        yield Target(url=server.url)


def _first_line(file: str) -> str:
    try:
        lines = Path(file).read_text(encoding="utf-8").split()
    except OSError as error:
        raise ConfigError(f"api_key_file {file}: {error.strerror}", param="api_key_file") from None
    if not lines:
        raise ConfigError(f"api_key_file {file}: is empty; expected the key in its first line", param="api_key_file")
    return lines[0]


def _plan_options(seed: int, rate: float, speed: float, duration: str, num_requests: int) -> PlanOptions:
    from octavo.bench.plan import PlanOptions
    from octavo.durations import parse_duration

    return PlanOptions(
        seed=seed,
        rate=rate or None,
        speed=speed or None,
        duration_s=None if duration == "0" else parse_duration(duration),
        num_requests=num_requests or None,
    )


def _prompts(options: PlanOptions, form: str, vocab_size: int) -> PlanOptions:
    import msgspec

    from octavo.bench.prompts import PromptOptions

    prompts = PromptOptions(form=form, vocab_high=vocab_size)
    return msgspec.structs.replace(options, prompts=prompts)


def _repeated(options: PlanOptions, i: int) -> PlanOptions:
    """The same times and lengths with fresh prompts, so that no run is answered from the cache of the one before."""
    import msgspec

    return msgspec.structs.replace(options, prompts=msgspec.structs.replace(options.prompts, repeat=i))


def _slo(text: str) -> Slo:
    from octavo.bench.model import Slo
    from octavo.bench.slo import parse_slo

    return parse_slo(text) if text else Slo()


def _rates(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"rates = {text!r}: expected numbers with commas between them, e.g. 1,2,4,8", param="rates"
        ) from None


def _max_rate(rate: float | None, beyond: float | None, slo: str) -> str:
    if rate is None:
        raise BenchError(f"no rate down to {beyond:g} requests/s keeps {slo}; try lower --rates")
    edge = f"; {beyond:g} does not" if beyond is not None else "; higher ones were not tried"
    return f"highest rate that keeps {slo}: {rate:g} requests/s{edge}"
