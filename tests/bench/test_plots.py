"""Plots of benchmark runs: contents, edge cases, same bytes every time."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from octavo.bench import plots
from octavo.bench.compare import compare
from octavo.bench.plots import latency, load
from octavo.bench.types import Outcome
from support.bench_runs import make_records, make_run

ONE = make_run(make_records(300, 6.0, failed=0.05), rate=6.0)
FAILED = make_run(make_records(30, 6.0, failed=1.0), rate=6.0)
EMPTY = make_run([], rate=6.0)
GROUPS = {
    name: [make_run(make_records(150, 6.0, seed=seed, slow=slow), rate=6.0, name=name) for seed in range(5)]
    for name, slow in (("A", 1.0), ("B <b>&", 1.25))
}
RUNS = [run for pair in zip(*GROUPS.values(), strict=True) for run in pair]
SWEEP = [make_run(make_records(150, rate, seed=3), rate=rate) for rate in (1, 2, 4, 8, 12)]
COMPARISON = compare(GROUPS, seed=0)

DRAWN = [
    *((kind, ONE) for kind in plots.RUN_PLOTS),
    *((kind, RUNS) for kind in plots.RUNS_PLOTS),
    *((kind, SWEEP) for kind in plots.SWEEP_PLOTS),
    *((kind, COMPARISON) for kind in plots.COMPARISON_PLOTS),
]
EVERY = pytest.mark.parametrize(("kind", "subject"), DRAWN, ids=lambda value: getattr(value, "name", ""))


@EVERY
def test_every_plot_is_drawn_the_same_twice(kind, subject):
    first, second = (plots.encode(kind(subject), "svg") for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert root.tag.endswith("svg") and b"<dc:date>" not in first
    picture = imread(io.BytesIO(plots.encode(kind(subject), "png")))
    assert picture.shape[1] > 800 and picture[..., :3].std() > 0.02


@EVERY
def test_every_axis_says_what_it_is(kind, subject):
    figure = kind(subject)
    assert isinstance(figure, Figure) and figure.get_suptitle() and kind.caption.endswith(".")
    words = [axes.get_xlabel() + axes.get_ylabel() + axes.get_title(loc="left") for axes in figure.axes]
    assert all(words)
    text = " ".join(words)
    assert any(unit in text for unit in ("[ms]", "[s]", "tokens/s", "requests/s", "[%]", "ratio", "requests"))


@pytest.mark.parametrize("run", [FAILED, EMPTY], ids=["failed", "empty"])
def test_runs_without_a_response_have_plots_without_one(run):
    for kind in plots.RUN_PLOTS:
        figure = kind(run)
        assert figure is None or plots.encode(figure, "svg")
    for kind in plots.RUNS_PLOTS:
        figure = kind([run, run])
        assert figure is None or plots.encode(figure, "svg")
    assert plots.SWEEP_PLOTS[0]([run]) is None or plots.encode(plots.SWEEP_PLOTS[0]([run]), "svg")


def test_the_curve_of_latencies_is_that_of_the_requests():
    figure = latency.CDF([ONE])
    steady = [
        record.ttft_s * 1e3
        for record in ONE.records
        if record.outcome is Outcome.OK and record.intended_s >= ONE.summary.warm_up_s
    ]
    (curve,) = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) > 50]
    x, y = np.asarray(curve.get_xdata(), float), np.asarray(curve.get_ydata(), float)
    for share in (0.25, 0.5, 0.9):
        at = x[np.searchsorted(y, share * (100 if y.max() > 1.5 else 1))]
        assert np.quantile(steady, share - 0.03) <= at <= np.quantile(steady, share + 0.03)


def test_latency_against_load_goes_through_the_summaries():
    figure = load.PLOT(SWEEP)
    curves = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == len(SWEEP)]
    medians = [run.summary.ttft_s.p50.value * 1e3 for run in SWEEP]
    assert any(np.allclose(np.asarray(line.get_ydata(), float), medians) for line in curves)
    assert all(np.allclose(np.asarray(line.get_xdata(), float), [1, 2, 4, 8, 12]) for line in curves)


def test_every_point_of_a_comparison_is_inside():
    figure = plots.COMPARISON_PLOTS[0](COMPARISON)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        for row in COMPARISON.rows:
            if row.ratio.value is not None:
                assert low <= row.ratio.value <= high


def test_nothing_of_the_process_is_changed():
    before = dict(plt.rcParams)
    plots.encode(plots.RUN_PLOTS[0](ONE), "svg")
    assert dict(plt.rcParams) == before and not plt.get_fignums()
