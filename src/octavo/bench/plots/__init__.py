"""The registry of plots: one line each. Each file draws one plot, from plain data, without global state.

``RUN_PLOTS`` show one run, ``RUNS_PLOTS`` several together, the others what their names say.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.bench.compare import Comparison
from octavo.bench.peers import PeersResult
from octavo.bench.plots import (
    comparison,
    goodput,
    groups,
    inter_chunk,
    latency,
    load,
    over_time,
    scenarios,
    throughput,
    timeline,
)
from octavo.bench.plots.base import FORMATS, Plot, alone, encode, inline_svg
from octavo.bench.suite import ScenarioResult
from octavo.bench.types import Run

__all__ = [
    "COMPARISON_PLOTS",
    "FORMATS",
    "PEERS_PLOTS",
    "RUNS_PLOTS",
    "RUN_PLOTS",
    "SCENARIO_PLOTS",
    "SWEEP_PLOTS",
    "Plot",
    "encode",
    "inline_svg",
]

RUN_PLOTS: tuple[Plot[Run], ...] = (
    alone(latency.TAIL),
    alone(latency.CDF),
    over_time.PLOT,
    throughput.PLOT,
    timeline.PLOT,
    goodput.PLOT,
    alone(inter_chunk.PLOT),
)
RUNS_PLOTS: tuple[Plot[Sequence[Run]], ...] = (
    latency.TAIL,
    latency.CDF,
    inter_chunk.PLOT,
    groups.PLOT,
)
SWEEP_PLOTS: tuple[Plot[Sequence[Run]], ...] = (load.PLOT,)
COMPARISON_PLOTS: tuple[Plot[Comparison], ...] = (comparison.PLOT,)
SCENARIO_PLOTS: tuple[Plot[Sequence[ScenarioResult]], ...] = (scenarios.FRACTIONS, scenarios.RATES)
PEERS_PLOTS: tuple[Plot[PeersResult], ...] = (scenarios.RATIOS,)
