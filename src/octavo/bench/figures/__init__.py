"""The registry: one line a figure. Each file draws one thing, from plain data, without global state.

``RUN_FIGURES`` show one run, ``RUNS_FIGURES`` several together, the others what their names say.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.bench.compare import Comparison
from octavo.bench.figures import (
    comparison,
    goodput,
    groups,
    inter_chunk,
    latency,
    load,
    over_time,
    rows,
    throughput,
    timeline,
)
from octavo.bench.figures.base import FORMATS, FigureKind, alone, encode, inline_svg
from octavo.bench.model import Run
from octavo.bench.peers import PeersResult
from octavo.bench.suite import RowResult

__all__ = [
    "COMPARISON_FIGURES",
    "FORMATS",
    "PEERS_FIGURES",
    "ROWS_FIGURES",
    "RUNS_FIGURES",
    "RUN_FIGURES",
    "SWEEP_FIGURES",
    "FigureKind",
    "encode",
    "inline_svg",
]

RUN_FIGURES: tuple[FigureKind[Run], ...] = (
    alone(latency.TAIL),
    alone(latency.CDF),
    over_time.FIGURE,
    throughput.FIGURE,
    timeline.FIGURE,
    goodput.FIGURE,
    alone(inter_chunk.FIGURE),
)
RUNS_FIGURES: tuple[FigureKind[Sequence[Run]], ...] = (
    latency.TAIL,
    latency.CDF,
    inter_chunk.FIGURE,
    groups.FIGURE,
)
SWEEP_FIGURES: tuple[FigureKind[Sequence[Run]], ...] = (load.FIGURE,)
COMPARISON_FIGURES: tuple[FigureKind[Comparison], ...] = (comparison.FIGURE,)
ROWS_FIGURES: tuple[FigureKind[Sequence[RowResult]], ...] = (rows.FRACTIONS, rows.RATES)
PEERS_FIGURES: tuple[FigureKind[PeersResult], ...] = (rows.RATIOS,)
