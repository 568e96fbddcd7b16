"""``octavo schedule compare``: a trace replayed under several scheduling policies in the simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli.output import stdout
from octavo.errors import ConfigError
from octavo.extras import require

if TYPE_CHECKING:
    from octavo.simulator.replay import Setup
    from octavo.simulator.report import Loads
    from octavo.simulator.traffic import Arrival


@dataclass(frozen=True)
class _Traffic:
    """Which requests are replayed; ``count`` 0: the trace once."""

    trace: str
    count: int
    shares: str
    tenants: int


@dataclass(frozen=True)
class _Result:
    """``report``: what ``--json`` writes; ``page`` draws it as HTML."""

    report: dict[str, Any]
    page: Callable[[], str]


@dataclass(frozen=True)
class _Output:
    """Files to write beside the table; None: not wanted."""

    json: Path | None
    html: Path | None


def register(app: typer.Typer) -> None:
    schedule = typer.Typer(rich_markup_mode=None)
    schedule.command("compare", short_help="Replay a trace under several policies on a virtual clock.")(compare)
    about = "Compare scheduling policies on recorded traffic, in simulation."
    schedule.callback()(lambda: None)
    app.add_typer(schedule, name="schedule", short_help=about, help=about)


def compare(
    trace: Annotated[str, typer.Option(help="A bundled sample (an unknown name lists them) or a file")] = "azure-conv",
    policies: Annotated[
        str, typer.Option(help="Names with commas between them; an unknown one lists all", metavar="NAMES")
    ] = "fcfs,priority,sarathi,vtc,qoserve,slo",
    load: Annotated[
        float, typer.Option(help="Of what the machine can do (fcfs, all requests there at once); 0: as recorded", min=0)
    ] = 0.9,
    loads: Annotated[
        str,
        typer.Option(help="Several loads with commas between them instead of one, e.g. 0.5,0.7,0.9", metavar="LOADS"),
    ] = "",
    keep: Annotated[float, typer.Option(help="SLO attainment up to the knee, with --loads", min=0.01, max=1)] = 0.99,
    seeds: Annotated[int, typer.Option(help="How many seeds, from --seed on, with --loads", min=1)] = 1,
    num_requests: Annotated[
        int, typer.Option(help="How many; a shorter trace is repeated, 0: the trace once", min=0)
    ] = 2000,
    machine: Annotated[str, typer.Option(help="Whose step times; an unknown name lists all")] = "h200-8b",
    classes: Annotated[
        Path | None, typer.Option(help="TOML file of service classes; without it three built-in ones", metavar="FILE")
    ] = None,
    shares: Annotated[
        str, typer.Option(help="Share of each class in the traffic, e.g. 0.4,0.4,0.2; empty: equal")
    ] = "",
    tenants: Annotated[int, typer.Option(help="Equal tenants", min=1)] = 4,
    max_num_running: Annotated[int, typer.Option(help="Requests that run at once", min=1)] = 256,
    max_step_tokens: Annotated[int, typer.Option(help="Token budget of one step", min=1)] = 2048,
    lengths: Annotated[str, typer.Option(help="Forecast of output lengths: quantile, oracle, none")] = "quantile",
    seed: Annotated[int, typer.Option(help="Of classes, tenants and noise", min=0)] = 0,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as a page with plots", metavar="FILE")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the metrics", metavar="FILE")] = None,
) -> None:
    """Replay a trace through the real scheduler and KV cache on a virtual clock.

    Every policy gets the same requests at the same times. A request's SLO is attained if its TTFT, TPOT and wait
    are all within what its class states.
    """
    names = [name.strip() for name in policies.split(",") if name.strip()]
    if not names:
        raise ConfigError("policies is empty; name at least one, e.g. fcfs,slo", param="policies")
    if html is not None:
        require("matplotlib", "the plots of --html need")
    if loads:
        require("scipy", "the bound beside --loads needs")
    setup = _setup(machine, classes, max_num_running, max_step_tokens, lengths, seed)
    arrivals_of_seed = _arrivals(_Traffic(trace, num_requests, shares, tenants), setup)
    if loads:
        result = _run_loads(names, arrivals_of_seed, setup, _loads(loads, range(seed, seed + seeds), keep))
    else:
        result = _run_one_load(names, arrivals_of_seed(seed), setup, load)
    result.report["setup"] = {"trace": trace, "machine": machine, "tenants": tenants} | result.report["setup"]
    (_show_loads if loads else _show)(result.report)
    _write(result, _Output(json, html))


def _setup(
    machine: str, classes: Path | None, max_num_running: int, max_step_tokens: int, lengths: str, seed: int
) -> Setup:
    from octavo.engine.build import read_classes
    from octavo.scheduler.classes import check_steps
    from octavo.simulator.machine import find_machine
    from octavo.simulator.replay import Setup

    found = find_machine(machine)
    service_classes = read_classes(str(classes or ""))
    check_steps(service_classes.all, found.fastest_step_s)
    return Setup(found, service_classes, max_num_running, max_step_tokens, lengths=lengths, seed=seed)


def _run_one_load(names: list[str], arrivals: list[Arrival], setup: Setup, load: float) -> _Result:
    """``load`` 0: the trace's own rate."""
    from octavo.simulator import report as reports
    from octavo.simulator.compare import compare as replay_each
    from octavo.simulator.replay import capacity_rps
    from octavo.simulator.traffic import at_rate

    if load > 0:
        arrivals = at_rate(arrivals, capacity_rps(arrivals, setup) * load)
    replays = replay_each(names, arrivals, setup)
    report = reports.of_one_load(replays, arrivals, setup)
    report["setup"] = {"load": load} | report["setup"]

    def page() -> str:
        from octavo.cli import schedule_report

        return schedule_report.of_one_load(report, replays)

    return _Result(report, page)


def _run_loads(
    names: list[str], arrivals_of_seed: Callable[[int], list[Arrival]], setup: Setup, loads: Loads
) -> _Result:
    from octavo.simulator import report as reports
    from octavo.simulator.sweep import sweep

    points = list(sweep(names, arrivals_of_seed, setup, loads.values, loads.seeds))
    report = reports.of_loads(points, loads, setup)

    def page() -> str:
        from octavo.cli import schedule_report

        return schedule_report.of_loads(report)

    return _Result(report, page)


def _loads(text: str, seeds: range, target: float) -> Loads:
    from octavo.simulator.report import Loads

    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or values[0] <= 0:
        raise ConfigError(
            f"loads = {text!r}: expected numbers above zero with commas between them, e.g. 0.5,0.7", param="loads"
        )
    return Loads(values, seeds, target)


def _write(result: _Result, output: _Output) -> None:
    import msgspec

    if output.json is not None:
        output.json.write_bytes(msgspec.json.format(msgspec.json.encode(result.report), indent=2) + b"\n")
    if output.html is not None:
        output.html.write_text(result.page(), encoding="utf-8")


def _arrivals(traffic: _Traffic, setup: Setup) -> Callable[[int], list[Arrival]]:
    """The trace's requests for a seed, at its own rate."""
    from octavo.bench.traces import read_trace
    from octavo.simulator.traffic import Mix, arrivals_of

    shares = traffic.shares
    try:
        parts = tuple(float(part) for part in shares.split(",")) if shares else (1.0,) * len(setup.classes.all)
    except ValueError:
        raise ConfigError(
            f"shares = {shares!r}: expected numbers with commas between them, e.g. 0.4,0.4,0.2", param="shares"
        ) from None
    rows = list(read_trace(traffic.trace))

    def of_seed(seed: int) -> list[Arrival]:
        mix = Mix(parts, traffic.tenants, longest=setup.machine.kv_tokens // 2, seed=seed)
        return arrivals_of(rows, traffic.count or len(rows), setup.classes, mix)

    return of_seed


def _show_loads(report: dict[str, Any]) -> None:
    from rich.table import Table

    setup = report["setup"]
    title = f"{setup['trace']}: SLO attainment; knee: the highest load with {setup['target_attainment']:.0%}"
    table = Table(title=title, title_justify="left")
    for column in ("policy", "knee load", "knee req/s", *(f"{load:g}" for load in report["loads"])):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, found in report["policies"].items():
        table.add_row(
            name,
            f"{found['knee_load']:.3g}",
            f"{found['knee_rps']:.3g}",
            *(f"{one:.1%}" for one in found["attainment"]),
        )
    table.add_row("upper bound", "", "", *(f"{one:.1%}" for one in report["max_attainment"]))
    stdout().print(table)


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    setup = report["setup"]
    title = f"{setup['trace']}, {setup['requests']} requests at {setup['rate_rps']:.2f}/s on {setup['machine']}"
    table = Table(title=title, title_justify="left")
    for column in ("policy", "goodput/s", "output tok/s", "late starts", "gap", "jain", "SLO violations by class"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, found in report["policies"].items():
        violations = ", ".join(f"{one} {c['violations']}/{c['requests']}" for one, c in found["classes"].items())
        table.add_row(
            name,
            f"{found['goodput_rps']:.2f}",
            f"{found['output_tokens_per_s']:.0f}",
            str(found["max_wait_exceeded"]),
            f"{found['fairness_gap_tokens']:.0f}",
            f"{found['jain']:.3f}",
            violations,
        )
    stdout().print(table)
