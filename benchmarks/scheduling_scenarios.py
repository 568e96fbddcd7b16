"""Situations from real reports under five policies: writes docs/results/scheduling/scenarios.{json,svg}.

python benchmarks/scheduling_scenarios.py
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

from octavo.bench.traces import read_trace
from octavo.simulator.replay import replay
from octavo.simulator.scenarios import scenarios
from record import commit

POLICIES = ("fcfs", "priority", "vtc", "qoserve", "slo")


def main() -> None:
    out = Path(__file__).parents[1] / "docs" / "results" / "scheduling"
    cases = scenarios(list(read_trace("azure-code")))
    found = {case.name: {p: case.measure(replay(p, case.arrivals, case.setup)) for p in POLICIES} for case in cases}
    facts = {
        "commit": commit(),
        "command": "python benchmarks/scheduling_scenarios.py",
        "machine": "h200-8b, simulated",
    }
    (out / "scenarios.json").write_text(json.dumps({"facts": facts, "figures": found}, indent=1) + "\n")
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    for axes, case in zip(figure.subplots(3, 4).flat, cases, strict=False):
        values = [found[case.name][policy] for policy in POLICIES]
        bars = axes.barh(POLICIES, values, color=["#b0b0b0"] * 4 + ["#0072B2"])
        axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, max([*values, 1e-9]) * 1.18)
        axes.set_title(case.name, fontsize=9, loc="left")
        axes.set_xlabel(case.unit, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for empty in figure.axes[len(cases) :]:
        empty.set_axis_off()
    figure.savefig(out / "scenarios.svg", metadata={"Date": None})
    for name, values in found.items():
        print(name, {policy: round(value, 3) for policy, value in values.items()})


if __name__ == "__main__":
    main()
