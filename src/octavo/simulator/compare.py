"""Comparison of scheduling policies on the same arrivals: one replay each, and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from octavo.scheduler.policies import make_policy
from octavo.simulator.accounting import by_class
from octavo.simulator.replay import Replay, Setup, replay
from octavo.simulator.traffic import Arrival


def compare(policies: Sequence[str], arrivals: Sequence[Arrival], setup: Setup) -> list[Replay]:
    """One replay each, in the order given. Raises ``ConfigError`` for an unknown policy before the first runs."""
    for name in policies:
        make_policy(name)
    return [replay(name, arrivals, setup) for name in policies]


def metrics(done: Replay) -> dict[str, Any]:
    """``policies.<name>`` of the report. Times in seconds; ``fairness_gap_tokens`` in weighted tokens (see ``service.py``)."""
    return {
        "output_tokens_per_s": done.output_tokens_per_s,
        "goodput_rps": done.goodput_rps,
        "max_wait_exceeded": sum(one.waited_too_long for one in done.ended),
        "fairness_gap_tokens": done.fairness.gap,
        "jain": done.fairness.jain,
        "classes": by_class(done.ended),
        "requests": len(done.ended),
        "refused": len(done.refused),
        "preemptions": done.num_preemptions,
        "steps": done.num_steps,
        "virtual_s": done.virtual_s,
        "replayed_requests_per_s": len(done.ended) / max(done.wall_s, 1e-9),
        "step_time_error": done.forecast_error,
    }
