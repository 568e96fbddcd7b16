"""Policies over recorded traffic on the virtual machine: paired seeds, several loads, intervals; writes docs/results/scheduling/.

    python benchmarks/scheduling.py --out docs/results/scheduling

Every policy sees the same arrivals. Load 1 is what fcfs reaches when all requests are there at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from octavo.bench.statistics.effect import ratio_interval
from octavo.bench.traces import read_trace
from octavo.scheduler.classes import ServiceClasses
from octavo.simulator.compare import figures
from octavo.simulator.machine import find_machine
from octavo.simulator.replay import Setup, capacity_rps, replay
from octavo.simulator.traffic import Mix, arrivals_of, at_rate
from record import commit

POLICIES = ("fcfs", "priority", "qoserve", "slidingserve", "slo")
TRACES = {"azure-code": 500, "azure-conv": 500, "mooncake-conv": 100}
LOADS = (0.7, 0.9, 1.1, 1.5)
SEEDS = (0, 1, 2, 3)


def about() -> dict[str, str]:
    """The machine that is measured is virtual; the one it runs on only decides how long that takes."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "command": "python benchmarks/scheduling.py",
        "machine": f"h200-8b, simulated: {find_machine('h200-8b').source}",
    }


def measure(trace: str, count: int, deadline_s: float) -> list[dict[str, Any]]:
    """One row per load, seed and policy; ends between two seeds once ``deadline_s`` (of the wall clock) has passed."""
    rows, source, classes = [], list(read_trace(trace)), ServiceClasses()
    for seed in SEEDS:
        block_size = 64 if trace.startswith("mooncake") else 16
        setup = Setup(find_machine("h200-8b"), classes, block_size=block_size, seed=seed)
        mix = Mix((0.4, 0.4, 0.2), longest=setup.machine.kv_tokens // 2, seed=seed)
        arrivals = arrivals_of(source, count, classes, mix)
        capacity = capacity_rps(arrivals, setup)
        for load in LOADS:
            came = at_rate(arrivals, capacity * load)
            for policy in POLICIES:
                done = figures(replay(policy, came, setup))
                rows.append(
                    {"trace": trace, "load": load, "seed": seed, "policy": policy, "rate": capacity * load} | done
                )
        if time.monotonic() > deadline_s:
            break
    return rows


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """A table per trace: goodput with the ratio to slo, violations, tails."""
    lines = []
    for trace in dict.fromkeys(row["trace"] for row in rows):
        lines += [f"### {trace}", "", *_table([row for row in rows if row["trace"] == trace]), ""]
    return lines


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| load | policy | goodput/s | slo / this (95 %) | interactive violations | interactive TTFT p99 s | output tok/s "
        "| longest wait s | past max_wait | gap | Jain |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for load in LOADS:
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
                f"{sum(c['violations'] for c in urgent)} of {sum(c['requests'] for c in urgent)}",
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
    """Goodput against load, a panel per trace; bars from the lowest to the highest seed."""
    traces = list(dict.fromkeys(row["trace"] for row in rows))
    figure = Figure(figsize=(3.4 * len(traces), 3.0), layout="constrained")
    for axes, trace in zip(figure.subplots(1, len(traces), squeeze=False)[0], traces, strict=True):
        for policy, marker in zip(POLICIES, "os^Dv", strict=True):
            own = [
                [r["goodput_rps"] for r in rows if (r["trace"], r["load"], r["policy"]) == (trace, load, policy)]
                for load in LOADS
            ]
            middle = [_mean(values) for values in own]
            spread = [
                [m - min(v) for m, v in zip(middle, own, strict=True)],
                [max(v) - m for m, v in zip(middle, own, strict=True)],
            ]
            axes.errorbar(LOADS, middle, spread, marker=marker, markersize=4, capsize=2, linewidth=1.2, label=policy)
        axes.set(title=trace, xlabel="load", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("promises kept, requests/s")
    figure.axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/scheduling"))
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no new seed after this long")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    deadline_s, rows = time.monotonic() + 60 * options.minutes, []
    for trace, count in TRACES.items():
        rows += measure(trace, count, deadline_s)
        result = {"facts": about(), "rows": rows}
        (options.out / "policies.json").write_text(json.dumps(result) + "\n")
        (options.out / "policies.md").write_text("\n".join(summary(rows)))
        draw(rows, options.out / "goodput.svg")
        print("\n".join(summary(rows)), flush=True)


if __name__ == "__main__":
    main()
