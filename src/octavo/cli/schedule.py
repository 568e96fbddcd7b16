"""``octavo schedule``: what would another scheduling policy do to this traffic?"""

from __future__ import annotations

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
    facts = {"trace": trace, "load": load, "machine": machine, "tenants": tenants}
    arrivals = _arrivals(trace, num_requests, setup, (load, shares, tenants))
    _run(names, arrivals, setup, facts, (json, html))


def _run(
    names: list[str], arrivals: list[Any], setup: Any, facts: dict[str, Any], out: tuple[Path | None, Path | None]
) -> None:
    import msgspec

    from octavo.simulator import compare as comparing

    replays = comparing.compare(names, arrivals, setup)
    facts |= {
        "requests": len(arrivals),
        "rate_rps": len(arrivals) / max(arrivals[-1].arrival_s, 1e-9),
        "machine_source": setup.machine.source,
        "max_num_running": setup.max_num_running,
        "max_step_tokens": setup.max_step_tokens,
        "lengths": setup.lengths,
        "seed": setup.seed,
    }
    report = {"setup": facts, "policies": {done.policy: comparing.figures(done) for done in replays}}
    _show(report)
    json, html = out
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if html is not None:
        from octavo.simulator.report import render

        html.write_text(render(report, replays), encoding="utf-8")


def _setup(machine: str, classes: Path | None, sizes: tuple[int, int], lengths: str, seed: int) -> Any:
    from octavo.engine.build import read_classes
    from octavo.scheduler.classes import check_steps
    from octavo.simulator.machine import find_machine
    from octavo.simulator.replay import Setup

    found = find_machine(machine)
    promises = read_classes(str(classes or ""))
    check_steps(promises.all, found.fastest_step_s)
    return Setup(found, promises, max_num_running=sizes[0], max_step_tokens=sizes[1], lengths=lengths, seed=seed)


def _arrivals(source: str, count: int, setup: Any, who: tuple[float, str, int]) -> list[Any]:
    from octavo.bench.traces import read_trace
    from octavo.simulator.replay import capacity_rps
    from octavo.simulator.traffic import Mix, arrivals_of, at_rate

    load, shares, tenants = who
    try:
        parts = tuple(float(part) for part in shares.split(",")) if shares else (1.0,) * len(setup.classes.all)
    except ValueError:
        raise ConfigError(
            f"shares = {shares!r}: expected numbers with commas between them, e.g. 0.4,0.4,0.2", param="shares"
        ) from None
    rows = list(read_trace(source))
    mix = Mix(parts, tenants, longest=setup.machine.kv_tokens // 2, seed=setup.seed)
    arrivals = arrivals_of(rows, count or len(rows), setup.classes, mix)
    return at_rate(arrivals, capacity_rps(arrivals, setup) * load) if load > 0 else arrivals


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
