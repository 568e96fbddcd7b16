"""False-positive rate and power of ``compare``: simulated runs without a difference, and with 10 % in the medians.

    python benchmarks/bench_compare.py [--trials 300]

Prints the table of ``docs/results/bench-statistics.md``: the share of trials in which a metric is called different after Holm's
correction. "Open": an open loop that keeps up, three metrics tested; "closed": a closed loop with an SLO, five. "Named": the
TPOT's p50 alone, named beforehand (--metrics). "Called faster" is wrong in every row. With 8 + 8 runs a quarter of the trials is
made.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from octavo.bench.compare import compare, metric
from support.simulated_runs import Server, interleaved

NOISE = (0.01, 0.02, 0.03, 0.04, 0.05)


COLUMNS = ("ttft p50", "tpot p50", "a median", "any", "named", "called faster")


@dataclass(frozen=True)
class Case:
    slowness: float
    noise: float
    num_runs: int
    closed: bool = False


def verdicts(case: Case, trials: int) -> dict[str, float]:
    """Share of trials in which a metric is called different."""
    rng = np.random.default_rng(2026)
    found = dict.fromkeys(COLUMNS, 0)
    base, other = (Server(slow, case.noise, 3000, closed=case.closed) for slow in (1.0, case.slowness))
    for trial in range(trials):
        runs = interleaved(base, other, case.num_runs, rng)
        rows = compare(runs, seed=trial).rows
        called = {row.metric: row.verdict for row in rows if row.verdict != "no difference shown"}
        named = compare(runs, metrics=[metric("tpot_s.p50")], seed=trial).rows[0]
        found["ttft p50"] += "ttft_s.p50" in called
        found["tpot p50"] += "tpot_s.p50" in called
        found["a median"] += "ttft_s.p50" in called or "tpot_s.p50" in called
        found["any"] += bool(called)
        found["named"] += named.verdict != "no difference shown"
        found["called faster"] += "faster" in called.values()
    return {name: number / trials for name, number in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    trials = parser.parse_args().trials
    print(f"| load | difference | noise between runs | runs each | {' | '.join(COLUMNS)} |")
    print("|---" * (4 + len(COLUMNS)) + "|")
    cases = [Case(1.0, noise, 5, closed) for closed in (False, True) for noise in (0.01, 0.05)]
    cases += [Case(1.1, noise, 5, closed) for closed in (False, True) for noise in NOISE]
    cases += [Case(1.1, noise, 8) for noise in NOISE]
    for case in cases:
        found = verdicts(case, trials if case.num_runs <= 5 else max(1, trials // 4))
        shares = " | ".join(f"{share * 100:.1f}" for share in found.values())
        load = "closed" if case.closed else "open"
        slower = f"{(case.slowness - 1) * 100:.0f} %"
        print(f"| {load} | {slower} | {case.noise * 100:g} % | {case.num_runs} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
