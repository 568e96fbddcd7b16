"""Warnings of an unfair comparison: runs that differ in more than their label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import msgspec

from octavo.bench.types import Run

SAME: Mapping[str, tuple[str, Callable[[Run], str]]] = {
    "machine": ("the machines differ", lambda run: msgspec.json.encode(run.machine, order="deterministic").decode()),
    "workload": ("the workloads differ", lambda run: run.workload),
    "arrivals": ("the arrivals differ", lambda run: run.arrivals),
    "slo": ("the SLOs differ", lambda run: msgspec.json.encode(run.slo).decode()),
    "model": ("the models differ", lambda run: run.model),
}


def warnings_of(runs_by_label: Mapping[str, Sequence[Run]]) -> list[str]:
    """In words; empty where nothing but the label differs."""
    runs = [(label, run) for label, members in runs_by_label.items() for run in members]
    found = [
        f"left out, not valid: {label} of {run.created} ({run.invalid_reason})" for label, run in runs if not run.valid
    ]
    found += _differences(runs_by_label)
    for label, run in runs:
        if run.valid and run.summary.stationary is False:
            found.append(f"{label} of {run.created} was not stationary: its metrics depend on how long it ran")
    if not interleaved(runs_by_label):
        found.append(
            "the runs were not interleaved: what changed on the machine meanwhile looks like the label; run A B A B"
        )
    return found


def interleaved(runs_by_label: Mapping[str, Sequence[Run]]) -> bool:
    """Whether the label changes from run to run at least half as often as it could; A A A B B B changes once of five times. One
    run each cannot be interleaved any better."""
    order = sorted((run.created, label) for label, runs in runs_by_label.items() for run in runs)
    counts = [len(runs) for runs in runs_by_label.values()]
    possible = min(len(order) - 1, 2 * (len(order) - max(counts)))
    changes = sum(one[1] != other[1] for one, other in pairwise(order))
    return 2 * changes >= possible


def _differences(runs_by_label: Mapping[str, Sequence[Run]]) -> list[str]:
    found = []
    for words, of in SAME.values():
        by_label = {label: sorted({of(run) for run in runs}) for label, runs in runs_by_label.items()}
        if len({value for values in by_label.values() for value in values}) > 1:
            shown = "; ".join(f"{label}: {' and '.join(values)}" for label, values in by_label.items())
            found.append(f"{words}: {shown}")
    plans = {label: sorted(run.plan_digest for run in runs) for label, runs in runs_by_label.items()}
    if len({tuple(sorted(set(digests))) for digests in plans.values()}) > 1:
        found.append("the load plans differ between labels: use the same seeds, so that both get the same requests")
    commits = {label: sorted({run.commit for run in runs}) for label, runs in runs_by_label.items()}
    mixed = [f"{label}: {' and '.join(values)}" for label, values in commits.items() if len(values) > 1]
    if mixed:
        found.append(f"several commits under one label: {'; '.join(mixed)}")
    if len({tuple(values) for values in commits.values()}) > 1:
        found.append(
            "the commits differ: " + "; ".join(f"{name}: {' and '.join(one)}" for name, one in commits.items())
        )
    return found
