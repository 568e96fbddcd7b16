"""The knee of a curve of latency against load: the load of greatest power, throughput / latency.

Kleinrock (1979), "Power and deterministic rules of thumb for probabilistic problems in computer communications": beyond it, one
per cent more throughput costs more than one per cent more latency. For M/M/1 it lies at half load. It has no parameter and,
unlike a normalised distance to the chord (Kneedle, Satopaa et al. 2011), does not move with the range of loads that were tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Knee:
    index: int  # of the points as given
    load: float
    reached: bool  # false: the highest load still has the greatest power, so the bend lies beyond it


def find_knee(loads: Sequence[float], latencies: Sequence[float]) -> Knee | None:
    """Throughput and latency, one per point, in any order. None for fewer than three points above zero."""
    power = {
        index: load / latency
        for index, (load, latency) in enumerate(zip(loads, latencies, strict=True))
        if load > 0 and latency > 0
    }
    if len(power) < 3:
        return None
    best = max(power, key=lambda index: power[index])
    return Knee(best, loads[best], loads[best] < max(loads[index] for index in power))
