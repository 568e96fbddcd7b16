"""``octavo bench``: measure any OpenAI-compatible server, compare results, and the engine's own suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli import bench_peers, bench_report, bench_suite
from octavo.cli.bench_measure import EXIT_INTERRUPTED, Asked, Measurement, RunLabel, Stopped, parse_servers
from octavo.cli.output import say, stdout
from octavo.config import DEFAULT_MODEL
from octavo.errors import BenchError, ConfigError
from octavo.extras import require

if TYPE_CHECKING:
    from octavo.bench.sweep import MaxRate
    from octavo.bench.types import Run

Url = Annotated[str, typer.Option(help="The server; without it `octavo serve` is started here.", metavar="URL")]
Start = Annotated[
    str, typer.Option(help="Start this server instead: 'command {port} ...', no shell", metavar="COMMAND")
]
Model = Annotated[
    str, typer.Option(help=f"Model to ask for (with --url: default the first listed; else default: {DEFAULT_MODEL})")
]
Workload = Annotated[
    str, typer.Option(help="name:key=value,...; an unknown name lists all, e.g. chat, trace:azure-conv")
]
Arrivals = Annotated[str, typer.Option(help="constant, poisson, gamma, ramp, stepped, diurnal, closed:users=8 ...")]
Duration = Annotated[
    str, typer.Option(help="Stop sending after this long: 60 (seconds), 500ms, 2m, 1h; 0: no limit", metavar="TIME")
]
NumRequests = Annotated[int, typer.Option(help="How many requests; 0: as many as the duration holds", min=0)]
SloText = Annotated[str, typer.Option("--slo", help="ttft=500ms,tpot=50ms,e2e=10s", metavar="LIMITS")]
Seed = Annotated[int, typer.Option(help="Of the whole plan: the same seed sends the same requests.", min=0)]
ApiKeyFile = Annotated[str, typer.Option(help="File whose first line is the server's API key", metavar="FILE")]
Form = Annotated[
    str, typer.Option(help="What prompts are: tokens (exact lengths), text, messages; auto: the workload's own")
]
VocabSize = Annotated[int, typer.Option(help="Random token ids lie below it", min=101)]
MaxPrompt = Annotated[int, typer.Option(help="Cut longer prompts to so many tokens; 0: never", min=0)]
MaxOutput = Annotated[int, typer.Option(help="Cut longer answers to so many tokens; 0: never", min=0)]
Urls = Annotated[
    list[str] | None,
    typer.Option(
        help="The server; without it `octavo serve` is started here. Several, as name=URL: measured A B A B, compared",
        metavar="[NAME=]URL",
    ),
]
Starts = Annotated[
    list[str] | None,
    typer.Option(help="Start this server here: 'command {port} ...', no shell", metavar="[NAME=]COMMAND"),
]
ApiKeyFiles = Annotated[
    list[str] | None,
    typer.Option(help="File whose first line is the API key; name=FILE: of that server", metavar="[NAME=]FILE"),
]
Name = Annotated[str, typer.Option(help="Label of the result, for compare")]


def register(app: typer.Typer) -> None:
    bench = typer.Typer(rich_markup_mode=None)
    bench.command("run", short_help="Send one workload, say what came back and how sure that is.")(run)
    bench.command("sweep", short_help="Latency against load: the knee, the highest rate that attains an SLO.")(sweep)
    bench.command("compare", short_help="Is B faster than A, by how much, how sure?")(compare)
    bench_report.register(bench)
    bench.command("schema", short_help="The JSON Schema of a result file.")(schema)
    bench_suite.register(bench)
    bench_peers.register(bench)
    about = "Measure any OpenAI-compatible server, and this engine."
    app.add_typer(bench, name="bench", short_help=about, help=about)


def run(
    url: Urls = None,
    start: Starts = None,
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
    max_prompt: MaxPrompt = 0,
    max_output: MaxOutput = 0,
    repeat: Annotated[int, typer.Option(help="Runs of each server, each with fresh prompts; 5 to compare", min=1)] = 1,
    api_key_file: ApiKeyFiles = None,
    name: Name = "run",
    out: Annotated[Path, typer.Option(help="The result, one JSON file a run", metavar="FILE")] = Path("result.json"),
    rows: Annotated[Path | None, typer.Option(help="Per-request rows as .csv or .parquet", metavar="FILE")] = None,
) -> None:
    """Send one workload to a server, or to several in turn.

    Every latency counts from the moment a request was due, not from when the client got round to sending it. A run
    whose client could not keep up, or whose server went away, is marked invalid, with the reason; what was measured is
    on disk all the same. Example: octavo bench run --url A=http://127.0.0.1:8000 --url B=http://127.0.0.1:8001
    --rate 4 --repeat 5
    """
    require("scipy", "`octavo bench` needs")
    from octavo.bench.result import check_rows, write_rows
    from octavo.bench.server_set import open_targets

    asked = Asked(
        workload, arrivals, duration, slo, seed, form, vocab_size, max_prompt, max_output, num_requests, speed
    )
    measurement, servers = Measurement(asked), parse_servers(url or [], start or [], model, api_key_file or [], name)
    measurement.check(rate)
    if rows is not None:
        check_rows(rows)
    done: list[Run] = []
    with _told_to_end(), open_targets(servers, name, say) as found:
        try:
            for i in range(repeat):
                for one in found:
                    path = _path(out, one if len(found) > 1 else "", i + 1 if repeat > 1 else 0)
                    done.append(measurement.run(found[one], rate, RunLabel(one, path), i))
        except Stopped as stopped:
            done.append(stopped.run)
            raise
        finally:
            if rows is not None:
                write_rows(done, rows)
    if len(found) > 1:
        _print_comparison({one: [run for run in done if run.name == one] for one in found}, seed)
    raise typer.Exit(0 if all(one.valid for one in done) else 1)


def _path(out: Path, label: str, number: int) -> Path:
    """``result.json`` -> ``result-A-2.json``, with what is needed to tell the runs apart."""
    return out.with_stem("-".join([out.stem, *([label] if label else []), *([str(number)] if number else [])]))


def sweep(
    rates: Annotated[str, typer.Option(help="Requests per second: 1,2,4,8", metavar="RATES")],
    url: Url = "",
    start: Start = "",
    model: Model = "",
    workload: Workload = "chat",
    arrivals: Annotated[str, typer.Option(help="constant, poisson, gamma:burstiness=...")] = "poisson",
    duration: Duration = "60s",
    slo: SloText = "",
    seed: Seed = 0,
    form: Form = "auto",
    vocab_size: VocabSize = 30_000,
    max_prompt: MaxPrompt = 0,
    max_output: MaxOutput = 0,
    api_key_file: ApiKeyFile = "",
    name: Name = "sweep",
    out: Annotated[Path, typer.Option(help="One result per rate: FILE-RATE.json", metavar="FILE")] = Path("sweep.json"),
) -> None:
    """Latency against load at the given rates, from the lowest; with SLOs also a bisection to the highest rate that attains
    them for 99 % of requests. SLOs are --slo, or those that the requests of a workload bring (mixed)."""
    require("scipy", "`octavo bench` needs")
    from octavo.bench import sweep as sweeping
    from octavo.bench.run_table import knee_line
    from octavo.bench.server_set import open_targets

    measurement = Measurement(Asked(workload, arrivals, duration, slo, seed, form, vocab_size, max_prompt, max_output))
    if url and start:
        raise ConfigError("a sweep measures one server: give --url or --start, not both")
    wanted, key_files = _rates(rates), [api_key_file] if api_key_file else []
    servers = parse_servers([url] if url else [], [start] if start else [], model, key_files, name)
    for rate in wanted:
        measurement.check(rate)
    measured: list[Run] = []
    at_rate: dict[float, int] = {}
    with _told_to_end(), open_targets(servers, name, say) as found:
        (target,) = found.values()

        def run_at(rate: float) -> Run:
            again = at_rate[rate] = at_rate.get(rate, 0) + 1
            path = out.with_stem(f"{out.stem}-{rate:.4g}" + (f"-{again}" if again > 1 else ""))
            measured.append(measurement.run(target, rate, RunLabel(f"{name} {rate:.4g}/s", path), len(measured)))
            return measured[-1]

        curve = sweeping.sweep(run_at, wanted)
        stdout().print(knee_line(sweeping.knee_of(curve)))
        if slo or any(one.slo is not None for run in curve for one in run.records):
            ready = dict(zip(sorted(set(wanted)), curve, strict=True))
            edge = sweeping.find_max_rate(lambda rate: ready.pop(rate, None) or run_at(rate), measurement.slo, wanted)
            _print_edge(edge, slo or "the requests' own SLOs")
    raise typer.Exit(0 if any(one.valid for one in curve) else 1)


def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Result files; those of one label belong together", metavar="A.json B.json ...")
    ],
    label: Annotated[list[str] | None, typer.Option(help="One per file, instead of the names in the files")] = None,
    metrics: Annotated[
        str,
        typer.Option(help="Test only these, e.g. ttft_s.p50: fewer tests show smaller differences", metavar="NAMES"),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the permutations, where there are too many for all.", min=0)] = 0,
) -> None:
    """Is B faster than A? Runs are grouped by the name they were given (--name); the first one is the baseline."""
    require("scipy", "`octavo bench` needs")
    from octavo.bench.result import load

    if label and len(label) != len(results):
        raise ConfigError(f"{len(results)} results but {len(label)} labels; give one --label for each file")
    groups: dict[str, list[Run]] = {}
    for i, path in enumerate(results):
        one = load(path)
        groups.setdefault(label[i] if label else one.name, []).append(one)
    _print_comparison(groups, seed, metrics)


def schema() -> None:
    """Print the JSON Schema of a result file."""
    from octavo.bench.result import published_schema

    typer.echo(published_schema(), nl=False)


@contextmanager
def _told_to_end() -> Iterator[None]:
    """A run that was stopped by SIGTERM ends the command with the exit code of that."""
    from octavo.bench.termination import sigterm_as_interrupt

    with sigterm_as_interrupt() as ended:
        try:
            yield
        except Stopped:
            raise typer.Exit(ended() or EXIT_INTERRUPTED) from None


def _print_comparison(groups: dict[str, list[Run]], seed: int, metrics: str = "") -> None:
    from octavo.bench.compare import compare, metric
    from octavo.bench.compare_table import render

    chosen = [metric(one.strip()) for one in metrics.split(",")] if metrics else None
    stdout().print(render(compare(groups, metrics=chosen, seed=seed)))


def _rates(text: str) -> list[float]:
    from octavo.bench.sweep import ascending

    try:
        return ascending([float(part) for part in text.split(",")])
    except ValueError:
        raise ConfigError(
            f"rates = {text!r}: expected numbers with commas between them, e.g. 1,2,4,8", param="rates"
        ) from None


def _print_edge(edge: MaxRate, targets: str) -> None:
    from octavo.bench.run_table import slo_line

    if edge.rate is None:
        reason = f" ({edge.trials[-1].reason})" if edge.trials[-1].reason else ""
        raise BenchError(f"no rate down to {edge.beyond:.4g} requests/s attains {targets}{reason}; try lower --rates")
    beyond = f"{edge.beyond:.4g} does not" if edge.beyond is not None else "higher ones were not tried"
    stdout().print(f"highest rate that attains {targets}: {edge.rate:.4g} requests/s; {beyond}", soft_wrap=True)
    if edge.slo_check is not None:
        stdout().print(f"at that rate, {slo_line(edge.slo_check)}", soft_wrap=True)
