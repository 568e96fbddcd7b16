"""Plot: times between chunks, and the longest pause of each response."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from octavo.bench.plots.base import Plot
from octavo.bench.plots.data import steady, styled, title_of
from octavo.bench.plots.distribution import draw_line, draw_marks, finish_panel, line_handles, mark_handle, marks
from octavo.bench.plots.style import fit_legend, new_figure
from octavo.bench.statistics.dependence import Array
from octavo.bench.types import Run


def gaps(run: Run) -> tuple[Array, Array]:
    """Seconds between neighbouring chunks of the steady state's responses; and the longest of each response."""
    each = [np.diff(np.asarray(one.chunk_s, dtype=np.float64)) for one in steady(run) if len(one.chunk_s) > 1]
    if not each:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(each), np.array([one.max() for one in each])


def draw(runs: Sequence[Run]) -> Figure | None:
    lines = styled(runs)
    found = [gaps(run.run) for run in lines]
    if not any(len(every) for every, _ in found):
        return None
    figure = new_figure(3.2, f"Inter-chunk latency: {title_of(runs)}")
    panels = figure.subplots(1, 2, squeeze=False)[0]
    for place, axes in enumerate(panels):
        seen, smallest = [], 0.5
        for line, values in zip(lines, (one[place] * 1e3 for one in found), strict=True):
            if not len(values):
                continue
            draw_line(axes, line, values, tail=True)
            seen += [values.min(), values.max()]
            smallest = min(smallest, 0.5 / len(values))
            if len(lines) == 1 and place == 0:
                seen += draw_marks(axes, marks(line.run.summary.inter_chunk_s, values[:1]), 1e3, line, tail=True)
        finish_panel(axes, seen, tail=True, smallest=max(smallest, 1e-5))
    panels[0].set(title="every pause", xlabel="time between two chunks [ms]", ylabel="pauses longer than this")
    panels[1].set(
        title="longest pause of a response", xlabel="its longest pause [ms]", ylabel="responses with a longer one"
    )
    fit_legend(figure, line_handles(lines) if len(lines) > 1 else [mark_handle()])
    return figure


PLOT = Plot(
    "inter-chunk",
    "Left, all pauses between chunks of a response; right, the longest of each: stalls that an average (TPOT) hides.",
    draw,
)
