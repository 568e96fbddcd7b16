"""Coverage of the stated 95 % confidence intervals: simulated runs whose mean and quantiles are known exactly.

    python benchmarks/bench_coverage.py [--runs 300] [--json coverage.json] [--part intervals|warm-up|trend|all]

Prints the tables of ``docs/results/bench-statistics.md``. Width is the median interval width over the truth. "Cut" applies the
MSER-5 warm-up cut first, although these series have no warm-up: what it costs where it is not needed. "Warned" is the share of
runs whose result warns of too few effective requests. The warm-up part says how often a slow start is cut, and how often a
stationary run. The trend part says how often the slope test calls a stationary series growing, and how often an overloaded
queue.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from octavo.bench.statistics.dependence import block_length, block_means, inflation
from octavo.bench.statistics.mean import mean_interval
from octavo.bench.statistics.quantile import quantile_intervals
from octavo.bench.statistics.trend import slope_p_value
from octavo.bench.statistics.warm_up import warm_up_length
from octavo.bench.summary import FEWEST_EFFECTIVE, TREND_P_VALUE
from octavo.bench.types import Interval
from support.latency_processes import Process, lognormal, queue
from support.simulated_runs import queue_records

PROCESSES = (lognormal(), lognormal(0.5), lognormal(0.8), queue(0.5), queue(0.7), queue(0.8))
SIZES = (300, 1000, 3000)
PROBABILITIES = (0.5, 0.9, 0.99)
COLUMNS = ("mean", "p50", "p90", "p99", "mean, plain percentile", "mean, cut", "p99, cut")


def measure(process: Process, size: int, num_runs: int) -> dict[str, Any]:
    """Coverage and median relative width per column, and the mean share of a run that was cut."""
    rng = np.random.default_rng(2026)
    truths = [process.mean, *(process.quantile(p) for p in PROBABILITIES)]
    truths += [process.mean, process.mean, truths[3]]
    held = np.zeros(len(COLUMNS))
    widths: list[list[float]] = []
    cuts = []
    effective = []
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
        cuts.append(cut / size)
        effective.append(size / inflation(values))
    return {
        "process": process.name,
        "requests": size,
        "coverage": dict(zip(COLUMNS, (held / num_runs).round(4).tolist(), strict=True)),
        "width": dict(zip(COLUMNS, np.median(widths, axis=0).round(3).tolist(), strict=True)),
        "mean_share_cut": float(np.mean(cuts)),
        "effective": float(np.median(effective)),
        "warned": float(np.mean(np.array(effective) < FEWEST_EFFECTIVE)),
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


def intervals(num_runs: int) -> list[dict[str, Any]]:
    rows = []
    for process in PROCESSES:
        for size in SIZES:
            rows.append(measure(process, size, num_runs))
            print(rows[-1]["process"], size, rows[-1]["coverage"], file=sys.stderr, flush=True)
    print(f"Coverage, %, {num_runs} runs\n\n{table(rows, 'coverage', 100, 1)}\n")
    print(f"Median width / truth\n\n{table(rows, 'width', 1, 2)}\n")
    for row in rows:
        print(
            f"{row['process']}, {row['requests']}: mean share cut {row['mean_share_cut'] * 100:.1f} %, worth "
            f"{row['effective']:.0f} independent ones (median), warned of in {row['warned'] * 100:.0f} %"
        )
    return rows


def warm_ups(num_runs: int) -> None:
    """600 requests: stationary, the first 50 slowed by a factor, or slowed less and less (time constant 50 requests)."""
    step, decay = np.ones(600), np.zeros(600)
    step[50:], decay[:150] = 0, np.exp(-np.arange(150) / 50)
    starts = {"none": 0 * step, "4 times": 3 * step, "2 times": step, "4 times, fading": 3 * decay}
    print(f"Cut at all, and cut by 40 requests or more, %, {num_runs} runs\n")
    print("| series of 600 | " + " | ".join(starts) + " |\n|---|---|---|---|---|")
    for process in PROCESSES:
        cells = []
        for slowed in starts.values():
            rng = np.random.default_rng(2026)
            cuts = np.array([warm_up_length(process.draw(rng, 600) * (1 + slowed)) for _ in range(num_runs)])
            cells.append(f"{np.mean(cuts > 0) * 100:.0f}, {np.mean(cuts >= 40) * 100:.0f}")
        print(f"| {process.name} | " + " | ".join(cells) + " |", flush=True)


def overload(load: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Response times of a queue that is offered ``load`` times what it can answer, from empty."""
    return lambda rng, size: np.array([one.e2e_s for one in queue_records(10 * load, 10.0, size, rng)])


def trends(num_runs: int) -> None:
    print(f"Called not stationary at p < {TREND_P_VALUE}, %, {num_runs} runs\n")
    print("| series | " + " | ".join(str(size) for size in (100, *SIZES)) + " |\n|---|---|---|---|---|")
    stationary = [(process.name, process.draw) for process in (*PROCESSES, queue(0.9))]
    for name, draw in stationary + [(f"overload, {load} times", overload(load)) for load in (1.05, 1.2, 1.5)]:
        shares = []
        for size in (100, *SIZES):
            rng = np.random.default_rng(2026)
            found = [slope_p_value(draw(rng, size)) for _ in range(num_runs)]
            shares.append(np.mean([one is not None and one < TREND_P_VALUE for one in found]))
        print(f"| {name} | " + " | ".join(f"{share * 100:.1f}" for share in shares) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("intervals", "warm-up", "trend", "all"), default="all")
    arguments = parser.parse_args()
    if arguments.part in ("intervals", "all"):
        rows = intervals(arguments.runs)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if arguments.part in ("warm-up", "all"):
        warm_ups(arguments.runs)
    if arguments.part in ("trend", "all"):
        trends(arguments.runs)


if __name__ == "__main__":
    main()
