"""``octavo schedule compare``: a trace replayed under several scheduling policies in the simulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from octavo.cli.output import stdout
from octavo.errors import ConfigError


def register(app: typer.Typer) -> None:
    schedule = typer.Typer(rich_markup_mode=None)
    schedule.command("compare", short_help="Replay a trace under several policies on a virtual clock.")(compare)
    about = "What would another scheduling policy do to this traffic?"
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
    keep: Annotated[
        float, typer.Option(help="Share of promises that is kept up to the knee, with --loads", min=0.01, max=1)
    ] = 0.99,
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
    lengths: Annotated[str, typer.Option(help="Forecast of answer lengths: quantile, oracle, none")] = "quantile",
    seed: Annotated[int, typer.Option(help="Of classes, tenants and noise", min=0)] = 0,
    html: Annotated[Path | None, typer.Option(help="Write the comparison with figures", metavar="FILE")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures", metavar="FILE")] = None,
) -> None:
    """Replay a trace through the real scheduler and KV cache on a virtual clock.

    Every policy gets the same requests at the same times. A promise is kept if the first token, the mean time per token and the
    wait are all within what the request's class states.
    """
    names = [name.strip() for name in policies.split(",") if name.strip()]
    if not names:
        raise ConfigError("policies is empty; name at least one, e.g. fcfs,slo", param="policies")
    setup = _setup(machine, classes, (max_num_running, max_step_tokens), lengths, seed)
    facts = {"trace": trace, "machine": machine, "tenants": tenants}
    if loads:
        wanted = {"keep": keep, "seeds": seeds}
        _run_loads(
            names, _arrivals(trace, num_requests, setup, shares, tenants), setup, (facts | wanted, loads), (json, html)
        )
        return
    from octavo.simulator.replay import capacity_rps
    from octavo.simulator.traffic import at_rate

    arrivals = _arrivals(trace, num_requests, setup, shares, tenants)(seed)
    if load > 0:
        arrivals = at_rate(arrivals, capacity_rps(arrivals, setup) * load)
    _run(names, arrivals, setup, facts | {"load": load}, (json, html))


def _run(
    names: list[str], arrivals: list[Any], setup: Any, facts: dict[str, Any], out: tuple[Path | None, Path | None]
) -> None:
    import msgspec

    from octavo.simulator import compare as comparing

    replays = comparing.compare(names, arrivals, setup)
    facts |= {"requests": len(arrivals), "rate_rps": len(arrivals) / max(arrivals[-1].arrival_s, 1e-9)}
    report = {
        "setup": facts | _setup_facts(setup),
        "policies": {done.policy: comparing.figures(done) for done in replays},
    }
    _show(report)
    json, html = out
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if html is not None:
        from octavo.cli.schedule_report import of_one_load

        html.write_text(of_one_load(report, replays), encoding="utf-8")


def _run_loads(
    names: list[str],
    arrivals_of_seed: Any,
    setup: Any,
    what: tuple[dict[str, Any], str],
    out: tuple[Path | None, Path | None],
) -> None:
    import msgspec

    from octavo.simulator.sweep import knee, sweep

    facts, text = what
    try:
        loads = sorted({float(part) for part in text.split(",")})
    except ValueError:
        loads = []
    if not loads or loads[0] <= 0:
        raise ConfigError(
            f"loads = {text!r}: expected numbers above zero with commas between them, e.g. 0.5,0.7", param="loads"
        )
    points = list(sweep(names, arrivals_of_seed, setup, loads, range(setup.seed, setup.seed + facts["seeds"])))
    facts |= {"requests": len(points[0].done.ended) + len(points[0].done.refused)} | _setup_facts(setup)
    policies = {}
    for name in names:
        kept = [_mean(one.kept for one in points if (one.done.policy, one.load) == (name, load)) for load in loads]
        bend = knee(loads, kept, facts["keep"])
        per_load = points[0].rate_rps / points[0].load
        policies[name] = {"knee_load": bend, "knee_rps": bend * per_load, "kept": kept}
    most = [_mean(one.most_kept for one in points if one.load == load) for load in loads]
    report = {"setup": facts, "loads": loads, "most_kept": most, "policies": policies}
    _show_loads(report)
    json, html = out
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if html is not None:
        from octavo.cli.schedule_report import of_loads

        html.write_text(of_loads(report), encoding="utf-8")


def _mean(values: Any) -> float:
    found = list(values)
    return float(sum(found) / len(found))


def _setup_facts(setup: Any) -> dict[str, Any]:
    return {
        "machine_source": setup.machine.source,
        "max_num_running": setup.max_num_running,
        "max_step_tokens": setup.max_step_tokens,
        "lengths": setup.lengths,
        "seed": setup.seed,
    }


def _setup(machine: str, classes: Path | None, sizes: tuple[int, int], lengths: str, seed: int) -> Any:
    from octavo.engine.build import read_classes
    from octavo.scheduler.classes import check_steps
    from octavo.simulator.machine import find_machine
    from octavo.simulator.replay import Setup

    found = find_machine(machine)
    promises = read_classes(str(classes or ""))
    check_steps(promises.all, found.fastest_step_s)
    return Setup(found, promises, max_num_running=sizes[0], max_step_tokens=sizes[1], lengths=lengths, seed=seed)


def _arrivals(source: str, count: int, setup: Any, shares: str, tenants: int) -> Callable[[int], list[Any]]:
    """The trace's requests for a seed, at its own rate."""
    from octavo.bench.traces import read_trace
    from octavo.simulator.traffic import Mix, arrivals_of

    try:
        parts = tuple(float(part) for part in shares.split(",")) if shares else (1.0,) * len(setup.classes.all)
    except ValueError:
        raise ConfigError(
            f"shares = {shares!r}: expected numbers with commas between them, e.g. 0.4,0.4,0.2", param="shares"
        ) from None
    rows = list(read_trace(source))

    def of(seed: int) -> list[Any]:
        mix = Mix(parts, tenants, longest=setup.machine.kv_tokens // 2, seed=seed)
        return arrivals_of(rows, count or len(rows), setup.classes, mix)

    return of


def _show_loads(report: dict[str, Any]) -> None:
    from rich.table import Table

    setup = report["setup"]
    title = f"{setup['trace']}: share of promises kept; knee: the highest load at which {setup['keep']:.0%} are"
    table = Table(title=title, title_justify="left")
    for column in ("policy", "knee load", "knee req/s", *(f"{load:g}" for load in report["loads"])):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, found in report["policies"].items():
        table.add_row(
            name, f"{found['knee_load']:.3g}", f"{found['knee_rps']:.3g}", *(f"{one:.1%}" for one in found["kept"])
        )
    table.add_row("no schedule more", "", "", *(f"{one:.1%}" for one in report["most_kept"]))
    stdout().print(table)


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    setup = report["setup"]
    title = f"{setup['trace']}, {setup['requests']} requests at {setup['rate_rps']:.2f}/s on {setup['machine']}"
    table = Table(title=title, title_justify="left")
    for column in ("policy", "goodput/s", "output tok/s", "late waits", "gap", "jain", "violations by class"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, figures in report["policies"].items():
        broken = ", ".join(f"{one} {c['violations']}/{c['requests']}" for one, c in figures["classes"].items())
        table.add_row(
            name,
            f"{figures['goodput_rps']:.2f}",
            f"{figures['output_tokens_per_s']:.0f}",
            str(figures["max_wait_exceeded"]),
            f"{figures['fairness_gap_tokens']:.0f}",
            f"{figures['jain']:.3f}",
            broken,
        )
    stdout().print(table)
