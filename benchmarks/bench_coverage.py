"""How often the stated 95 % intervals hold the truth: simulated runs whose mean and quantiles are known exactly.

    python benchmarks/bench_coverage.py [--runs 300] [--json coverage.json]

Prints the tables of ``docs/results/bench-statistics.md``. Width is the median interval width over the truth. "Cut" applies the
MSER-5 warm-up cut first, although these series have no warm-up: what it costs where it is not needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from octavo.bench.model import Interval
from octavo.bench.statistics.dependence import block_length, block_means
from octavo.bench.statistics.mean import mean_interval
from octavo.bench.statistics.quantile import quantile_intervals
from octavo.bench.statistics.trend import slope_p_value
from octavo.bench.statistics.warm_up import warm_up_length
from support.latency_processes import Process, lognormal, queue

PROCESSES = (lognormal(), lognormal(0.5), lognormal(0.8), queue(0.5), queue(0.7), queue(0.8))
SIZES = (300, 1000, 3000)
PROBABILITIES = (0.5, 0.9, 0.99)
COLUMNS = ("mean", "p50", "p90", "p99", "mean, plain percentile", "mean, cut", "p99, cut")


def measure(process: Process, size: int, num_runs: int) -> dict[str, Any]:
    """Coverage and median relative width per column, and the share of runs called not stationary or cut."""
    rng = np.random.default_rng(2026)
    truths = [process.mean, *(process.quantile(p) for p in PROBABILITIES)]
    truths += [process.mean, process.mean, truths[3]]
    held = np.zeros(len(COLUMNS))
    widths: list[list[float]] = []
    trends, cuts = [], []
    for run in range(num_runs):
        values = process.draw(rng, size)
        cut = warm_up_length(values)
        kept = values[cut:]
        found = [
            mean_interval(values, run),
            *quantile_intervals(values, PROBABILITIES),
            percentile_interval(values, run),
        ]
        found += [mean_interval(kept, run), *quantile_intervals(kept, (0.99,))]
        held += [one.low <= truth <= one.high for one, truth in zip(found, truths, strict=True)]
        widths.append([(one.high - one.low) / truth for one, truth in zip(found, truths, strict=True)])
        trends.append((slope_p_value(values) or 1.0) < 0.05)
        cuts.append(cut / size)
    return {
        "process": process.name,
        "requests": size,
        "coverage": dict(zip(COLUMNS, (held / num_runs).round(4).tolist(), strict=True)),
        "width": dict(zip(COLUMNS, np.median(widths, axis=0).round(3).tolist(), strict=True)),
        "called_trend_at_5_percent": float(np.mean(trends)),
        "mean_share_cut": float(np.mean(cuts)),
    }


def percentile_interval(values: np.ndarray, seed: int) -> Interval:
    """What many tools do: the percentile interval of the moving-block bootstrap. For comparison only."""
    length = block_length(values)
    means = block_means(values, length)
    rng = np.random.default_rng(seed)
    drawn = means[rng.integers(0, len(means), (1000, max(2, len(values) // length)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def table(rows: list[dict[str, Any]], kind: str, scale: float, digits: int) -> str:
    lines = ["| series | requests | " + " | ".join(COLUMNS) + " |", "|---|---" + "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = [f"{row[kind][column] * scale:.{digits}f}" for column in COLUMNS]
        lines.append(f"| {row['process']} | {row['requests']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for process in PROCESSES:
        for size in SIZES:
            rows.append(measure(process, size, arguments.runs))
            print(rows[-1]["process"], size, rows[-1]["coverage"], file=sys.stderr, flush=True)
    print(f"Coverage, %, {arguments.runs} runs\n\n{table(rows, 'coverage', 100, 1)}\n")
    print(f"Median width / truth\n\n{table(rows, 'width', 1, 2)}\n")
    for row in rows:
        called, cut = row["called_trend_at_5_percent"] * 100, row["mean_share_cut"] * 100
        print(f"{row['process']}, {row['requests']}: trend at 5 % {called:.1f} %, cut {cut:.1f} %")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
