"""How often ``compare`` says "differs": without a difference (it must not), and with 10 % in the medians (its power).

    python benchmarks/bench_compare.py [--trials 300]

Prints the table of ``docs/results/bench-statistics.md``: the share of trials in which a metric is called different after Holm's
correction over all five. "Called faster" is wrong in every row. With 8 + 8 runs a quarter of the trials is made.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from octavo.bench.compare import compare
from support.simulated_runs import Server, interleaved

NOISE = (0.005, 0.01, 0.02, 0.03, 0.05)


def verdicts(slowness: float, noise: float, num_runs: int, trials: int) -> dict[str, float]:
    """Share of trials in which a metric is called different; ``any``: at least one of five; ``wrong``: one called faster."""
    rng = np.random.default_rng(2026)
    found = {"ttft_s.p50": 0, "tpot_s.p50": 0, "any": 0, "wrong": 0}
    for trial in range(trials):
        runs = interleaved(Server(between=noise, size=3000), Server(slowness, noise, 3000), num_runs, rng)
        called = {
            row.metric: row.verdict for row in compare(runs, seed=trial).rows if row.verdict != "no difference shown"
        }
        for name in called:
            if name in found:
                found[name] += 1
        found["any"] += bool(called)
        found["wrong"] += "faster" in called.values()
    return {name: number / trials for name, number in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    trials = parser.parse_args().trials
    print("| difference | noise between runs | runs each | ttft p50 | tpot p50 | any of five | called faster |")
    print("|---|---|---|---|---|---|---|")
    cases = [(1.0, noise, 5) for noise in (0.01, 0.05)]
    cases += [(1.1, noise, num_runs) for num_runs in (5, 8) for noise in NOISE]
    for slowness, noise, num_runs in cases:
        found = verdicts(slowness, noise, num_runs, trials if num_runs <= 5 else max(1, trials // 4))
        shares = " | ".join(f"{share * 100:.1f}" for share in found.values())
        print(f"| {(slowness - 1) * 100:.0f} % | {noise * 100:g} % | {num_runs} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
