"""Policies over recorded traffic on the virtual machine: paired seeds, several loads, intervals; writes docs/results/scheduling/.

    python benchmarks/scheduling.py --out docs/results/scheduling

Every policy sees the same arrivals. Load 1 is what fcfs reaches when all requests are there at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from octavo.bench.statistics.effect import ratio_interval
from octavo.bench.traces import read_trace
from octavo.scheduler.classes import ServiceClasses
from octavo.simulator.compare import metrics
from octavo.simulator.machine import find_machine
from octavo.simulator.replay import Setup
from octavo.simulator.sweep import knee, sweep
from octavo.simulator.traffic import Arrival, Mix, arrivals_of
from octavo.simulator.upper_bound import max_attained
from octavo.types import ServiceClass
from record import commit

POLICIES = ("fcfs", "priority", "qoserve", "slidingserve", "slo")
LONG = ServiceClasses(  # ten times the time to the first token, for prompts of 15,000 tokens
    (
        ServiceClass(name="interactive", ttft_s=5.0, tpot_s=0.05, max_wait_s=60.0),
        ServiceClass(name="standard", ttft_s=20.0, tpot_s=0.1, max_wait_s=60.0),
        ServiceClass(name="batch", max_wait_s=60.0),
    )
)
TABLE_LOADS = (0.9, 1.1, 1.5)


@dataclass(frozen=True)
class Case:
    """A trace, service classes, and the loads between which SLO attainment falls from 100 % to 90 %."""

    trace: str
    num_requests: int
    loads: tuple[float, ...]
    classes: ServiceClasses = field(default_factory=ServiceClasses)
    block_size: int = 16


CASES = {
    "azure-code": Case("azure-code", 500, (0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)),
    "azure-conv": Case("azure-conv", 456, (1.0, 1.2, 1.35, 1.65, 1.8, 2.0, 2.25, 2.5, 3.0)),
    "mooncake-conv": Case("mooncake-conv", 250, (), block_size=64),
    "mooncake-conv, long": Case("mooncake-conv", 250, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0), LONG, 64),
}
WANTED = (0.99, 0.95, 0.9)  # SLO attainment
SEEDS = (0, 1, 2, 3)


def about() -> dict[str, str]:
    """The machine that is measured is virtual; the one it runs on only decides how long that takes."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "command": "python benchmarks/scheduling.py",
        "machine": f"h200-8b, simulated: {find_machine('h200-8b').source}",
    }


def measure(name: str) -> list[dict[str, Any]]:
    """One row per load, seed and policy, load by load."""
    case, source = CASES[name], list(read_trace(CASES[name].trace))
    setup = Setup(find_machine("h200-8b"), case.classes, block_size=case.block_size)

    def arrivals_of_seed(seed: int) -> list[Arrival]:
        mix = Mix((0.4, 0.4, 0.2), longest=setup.machine.kv_tokens // 2, seed=seed)
        return arrivals_of(source, case.num_requests, case.classes, mix)

    rows: list[dict[str, Any]] = []
    urgent_most: dict[tuple[float, int], int] = {}
    for point in sweep(POLICIES, arrivals_of_seed, setup, sorted({*case.loads, *TABLE_LOADS}), SEEDS):
        key = (point.load, point.seed)
        if point.load in TABLE_LOADS and key not in urgent_most:
            came = sorted((one.arrival for one in point.done.ended), key=lambda one: one.arrival_s)
            urgent_most[key] = max_attained(came, setup, lambda one: one.service_class == "interactive")
        row = {
            "trace": name,
            "load": point.load,
            "seed": point.seed,
            "policy": point.done.policy,
            "kept": point.attainment,
        }
        row |= {"rate": point.rate_rps, "most_kept": point.max_attainment, "interactive_most": urgent_most.get(key)}
        rows.append(row | (metrics(point.done) if point.load in TABLE_LOADS else {}))
        print(
            name,
            point.load,
            point.seed,
            point.done.policy,
            f"{point.attainment:.3f} of {point.max_attainment:.3f}",
            flush=True,
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """The knees, then a table per trace: goodput with the ratio to slo, violations, tails."""
    lines = ["### The highest load at which SLOs are attained", "", *_knees(rows), ""]
    for trace in dict.fromkeys(row["trace"] for row in rows):
        lines += [f"### {trace}", "", *_table([row for row in rows if row["trace"] == trace]), ""]
    return lines


def _knees(rows: list[dict[str, Any]]) -> list[str]:
    """Load at which SLO attainment falls below each of ``WANTED``; slo's over every policy's, with its interval."""
    lines = ["| trace | attained | " + " | ".join(POLICIES) + " |", "|---|---|" + "---|" * len(POLICIES)]
    for trace in dict.fromkeys(row["trace"] for row in rows):
        for wanted in WANTED:
            found = {policy: [_knee(rows, trace, policy, seed, wanted) for seed in SEEDS] for policy in POLICIES}
            if min(found["slo"]) > 0.0:
                cells = [_knee_cell(found[policy], found["slo"], policy) for policy in POLICIES]
                lines.append(f"| {trace} | {wanted:.0%} | " + " | ".join(cells) + " |")
    return lines


def _knee(rows: list[dict[str, Any]], trace: str, policy: str, seed: int, wanted: float) -> float:
    own = [row for row in rows if (row["trace"], row["policy"], row["seed"]) == (trace, policy, seed)]
    own.sort(key=lambda row: row["load"])
    return knee([row["load"] for row in own], [row["kept"] for row in own], wanted)


def _knee_cell(own: list[float], ours: list[float], policy: str) -> str:
    if min(own) <= 0.0:
        return "below all"
    ratio = ratio_interval(own, ours, 0)
    bounds = "" if ratio.low is None else f" ({ratio.low:.2f}-{ratio.high:.2f})"
    return f"{_mean(own):.3g}" + ("" if policy == "slo" else f"; slo {ratio.value:.2f} x{bounds}")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| load | policy | goodput/s | slo / this (95 %) | attained, of the upper bound | interactive violations | at least "
        "| interactive TTFT p99 s | output tok/s | longest wait s | past max_wait | gap | Jain |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for load in TABLE_LOADS:
        ours = [row for row in rows if row["load"] == load and row["policy"] == "slo"]
        for policy in POLICIES:
            own = [row for row in rows if row["load"] == load and row["policy"] == policy]
            ratio = ratio_interval([r["goodput_rps"] for r in own], [r["goodput_rps"] for r in ours], 0)
            interval = "" if ratio.low is None else f" ({ratio.low:.2f}-{ratio.high:.2f})"
            urgent = [row["classes"]["interactive"] for row in own]
            cells = (
                f"{load:g}",
                policy,
                f"{_mean(r['goodput_rps'] for r in own):.2f}",
                "" if policy == "slo" else f"{ratio.value:.2f}{interval}",
                f"{_mean(r['kept'] / r['most_kept'] for r in own):.3f}",
                f"{sum(c['violations'] for c in urgent)} of {sum(c['requests'] for c in urgent)}",
                f"{sum(c['requests'] for c in urgent) - sum(r['interactive_most'] for r in own)}",
                f"{_mean(c['ttft_p99_s'] for c in urgent):.2f}",
                f"{_mean(r['output_tokens_per_s'] for r in own):.0f}",
                f"{max(c['max_wait_s'] for r in own for c in r['classes'].values()):.1f}",
                str(sum(r["max_wait_exceeded"] for r in own)),
                f"{max(r['fairness_gap_tokens'] for r in own):.0f}",
                f"{_mean(r['jain'] for r in own):.3f}",
            )
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """SLO attainment against load, a panel per trace; bars from the lowest to the highest seed."""
    traces = list(dict.fromkeys(row["trace"] for row in rows))
    figure = Figure(figsize=(3.4 * len(traces), 3.0), layout="constrained")
    for axes, trace in zip(figure.subplots(1, len(traces), squeeze=False)[0], traces, strict=True):
        here = [row for row in rows if row["trace"] == trace]
        loads = sorted({row["load"] for row in here})
        for policy, marker in zip(POLICIES, "os^Dv", strict=True):
            own = [[r["kept"] for r in here if (r["load"], r["policy"]) == (load, policy)] for load in loads]
            middle = [_mean(values) for values in own]
            spread = [
                [m - min(v) for m, v in zip(middle, own, strict=True)],
                [max(v) - m for m, v in zip(middle, own, strict=True)],
            ]
            axes.errorbar(loads, middle, spread, marker=marker, markersize=4, capsize=2, linewidth=1.2, label=policy)
        most = [_mean(r["most_kept"] for r in here if r["load"] == load) for load in loads]
        axes.plot(loads, most, color="#888888", linestyle="--", linewidth=1.2, label="no schedule keeps more")
        axes.set(title=trace, xlabel="load", xscale="log", ylim=(0, 1.02))
        axes.set_xticks(loads[:: max(1, len(loads) // 5)], [f"{load:g}" for load in loads[:: max(1, len(loads) // 5)]])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("SLO attainment")
    figure.axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/scheduling"))
    parser.add_argument("--cases", default=";".join(CASES), help="measured anew; the others stay as the file has them")
    options = parser.parse_args()
    path = options.out / "policies.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for name in options.cases.split(";"):
        fresh = measure(name)
        if path.exists():  # another case may have been written meanwhile
            rows = json.loads(path.read_text())["rows"]
        rows = [row for row in rows if row["trace"] in CASES and row["trace"] != name and "most_kept" in row] + fresh
        rows.sort(key=lambda row: list(CASES).index(row["trace"]))
        path.write_text(json.dumps({"facts": about(), "rows": rows}) + "\n")
        (options.out / "policies.md").write_text("\n".join(summary(rows)))
        draw(rows, options.out / "goodput.svg")


if __name__ == "__main__":
    main()
