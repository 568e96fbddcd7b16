"""``compare`` finds what is there, stays silent where nothing is, and says what made a comparison unfair."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from rich.console import Console

from octavo.bench.compare import METRICS, compare, runs_needed
from octavo.bench.compare_table import ratio_text, render
from octavo.bench.compare_warnings import interleaved as are_interleaved
from octavo.bench.model import Interval, Run, Slo
from octavo.errors import BenchError, ConfigError
from support.simulated_runs import NOTHING, Server, interleaved, interval, latency, run, summary


def text_of(comparison: object) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(render(comparison))  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def at(minute: int, **more: object) -> Run:
    return run(created=f"2026-11-21T09:{minute:02d}:00Z", **more)


def test_no_difference_is_called_none_in_95_percent_of_trials() -> None:
    rng = np.random.default_rng(21)
    server, silent = Server(size=300), 0
    for trial in range(40):
        found = compare(interleaved(server, server, 5, rng), seed=trial)
        silent += all(row.verdict == "no difference shown" for row in found.rows)
    assert silent >= 35  # 35 or more of 40 in 98.6 % for a true 95 %; the figure: docs/results/bench-statistics.md


def test_ten_percent_in_the_medians_is_found_with_five_interleaved_runs() -> None:
    rng = np.random.default_rng(22)
    base = Server(between=0.01, size=1500, spread=0.3)
    slow = Server(slowness=1.1, between=0.01, size=1500, spread=0.3)
    found = [compare(interleaved(base, slow, 5, rng), seed=trial) for trial in range(20)]
    verdicts = [{row.metric: row for row in one.rows} for one in found]
    for metric in ("ttft_s.p50", "tpot_s.p50"):
        assert sum(rows[metric].verdict == "slower" for rows in verdicts) >= 18
    ratios = [rows["tpot_s.p50"].ratio for rows in verdicts]
    assert sum(one.low <= 1.1 <= one.high for one in ratios) >= 17  # type: ignore[operator]
    assert all(not one.warnings for one in found)


def test_direction_of_the_verdict() -> None:
    def measured(factor: float, first: int) -> list[Run]:
        return [
            at(
                first + 2 * i,
                found=summary(
                    ttft_s=latency((0.1 + 0.001 * i) * factor, 0.4),
                    output_tokens_per_s=interval((256 + i) / factor),
                ),
            )
            for i in range(5)
        ]

    found = compare({"old": measured(1.0, 0), "new": measured(0.5, 1)})
    rows = {row.metric: row for row in found.rows}
    assert found.baseline == "old" and len(rows) == 5
    assert rows["ttft_s.p50"].verdict == rows["output_tokens_per_s"].verdict == "faster"
    assert rows["ttft_s.p50"].ratio.value == pytest.approx(0.5)
    assert rows["output_tokens_per_s"].ratio.value == pytest.approx(2.0)
    assert rows["ttft_s.p99"].verdict == "no difference shown" and rows["ttft_s.p99"].p_value == 1.0
    assert rows["ttft_s.p50"].p_value == pytest.approx(2 / 252)
    assert rows["ttft_s.p50"].corrected_p_value == pytest.approx(5 * 2 / 252)
    back = {row.metric: row for row in compare({"new": measured(0.5, 1), "old": measured(1.0, 0)}).rows}
    assert back["ttft_s.p50"].verdict == "slower"


def test_one_run_each_gives_a_ratio_and_no_verdict() -> None:
    found = compare({"A": [at(0)], "B": [at(1, found=summary(ttft_s=latency(0.3, 0.9)))]})
    row = found.rows[0]
    assert row.verdict == "no difference shown" and row.p_value == 1.0
    assert row.ratio.value == pytest.approx(3.0)
    width = math.log(1.05 / 0.95) / 2 * math.sqrt(2)  # both runs' own intervals, in the logarithm
    assert row.ratio.low == pytest.approx(3 * math.exp(-width)) and row.ratio.high == pytest.approx(3 * math.exp(width))
    assert any("too few runs" in warning and "take 5 of each" in warning for warning in found.warnings)


def test_runs_needed() -> None:
    assert [runs_needed(tests) for tests in (1, 2, 6, 7, 12)] == [4, 5, 5, 6, 6]


def test_three_labels_are_corrected_together() -> None:
    labels = {name: [at(3 * i + offset) for i in range(5)] for offset, name in enumerate("ABC")}
    found = compare(labels)
    assert [(row.baseline, row.label) for row in found.rows] == [("A", "B")] * 5 + [("A", "C")] * 5
    assert any("10 tests" in warning and "take 6" in warning for warning in found.warnings)
    assert not compare(labels, metrics=METRICS[:3]).warnings


def test_metrics_without_values_are_left_out_and_zeros_have_no_ratio() -> None:
    missing = [at(2 * i, found=summary(tpot_s=latency(0.02, 0.03), goodput_rps=interval(0.0))) for i in range(5)]
    no_stream = latency(0.1, 0.2)
    none = [
        at(2 * i + 1, found=summary(tpot_s=type(no_stream)(mean=NOTHING, p50=NOTHING, p90=NOTHING, p99=NOTHING)))
        for i in range(5)
    ]
    rows = {row.metric: row for row in compare({"A": missing, "B": none}).rows}
    assert "tpot_s.p50" not in rows and "e2e_s.p50" in rows, "without TPOT, E2E is news"
    assert rows["goodput_rps"].ratio == NOTHING and rows["goodput_rps"].verdict == "faster"


def test_what_says_nothing_new_is_not_tested() -> None:
    same = summary(goodput_rps=interval(4.0))
    runs = {"A": [at(2 * i, found=same) for i in range(5)], "B": [at(2 * i + 1, found=same) for i in range(5)]}
    tested = ["ttft_s.p50", "ttft_s.p99", "tpot_s.p50", "output_tokens_per_s"]
    assert [row.metric for row in compare(runs).rows] == tested, "neither E2E nor, without an SLO, goodput"
    promised = {name: [at(i, found=same, slo=Slo(ttft_s=1.0)) for i in range(5)] for name in "AB"}
    assert [row.metric for row in compare(promised).rows] == [*tested, "goodput_rps"]


def test_invalid_runs_are_left_out_with_a_warning() -> None:
    good = [at(2 * i) for i in range(5)]
    other = [at(2 * i + 1) for i in range(5)] + [at(11, valid=False, invalid_reason="the client could not keep up")]
    found = compare({"A": good, "B": other})
    assert found.num_runs == {"A": 5, "B": 5}
    assert any("left out" in warning and "could not keep up" in warning for warning in found.warnings)
    with pytest.raises(BenchError, match=r"'B' has no valid run \(the client could not keep up\)"):
        compare({"A": good, "B": other[5:]})
    with pytest.raises(BenchError, match="no run at all"):
        compare({"A": good, "B": []})
    with pytest.raises(ConfigError, match="two labels or more"):
        compare({"A": good})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"commit": "ffff"}, "the commits differ: A: 0123456789ab; B: ffff"),
        ({"machine": {"cpu": "other"}}, "the machines differ"),
        ({"plan_digest": "cd" * 32}, "the load plans differ"),
        ({"workload": "code"}, "the workloads differ: A: chat; B: code"),
        ({"arrivals": "poisson:rate=8"}, "the arrivals differ"),
        ({"model": "big"}, "the models differ"),
        ({"slo": Slo(ttft_s=1.0)}, "the SLOs differ"),
        ({"found": summary(stationary=False)}, "was not stationary"),
    ],
)
def test_what_differs_besides_the_label_is_said(change: dict[str, object], words: str) -> None:
    fair = {"A": [at(2 * i) for i in range(5)], "B": [at(2 * i + 1) for i in range(5)]}
    assert compare(fair).warnings == []
    unfair = {"A": fair["A"], "B": [at(2 * i + 1, **change) for i in range(5)]}
    found = compare(unfair)
    assert any(words in warning for warning in found.warnings), found.warnings
    assert words in text_of(found)


def test_seeds_may_differ_between_runs_if_both_labels_have_the_same() -> None:
    runs = {name: [at(2 * i + offset, plan_digest=f"{i}" * 64) for i in range(5)] for offset, name in enumerate("AB")}
    assert compare(runs).warnings == []


def test_runs_one_label_after_the_other_are_warned_of() -> None:
    blocks = {"A": [at(i) for i in range(5)], "B": [at(10 + i) for i in range(5)]}
    assert not are_interleaved(blocks)
    assert any("not interleaved" in warning for warning in compare(blocks).warnings)
    mixed = [at(i, commit="abc" if i else "def") for i in range(5)]
    assert any("several commits under one label" in one for one in compare({"A": mixed, "B": blocks["B"]}).warnings)


def test_the_table_says_it_all() -> None:
    rng = np.random.default_rng(23)
    found = compare(interleaved(Server(between=0.005), Server(2.0, 0.005), 5, rng))
    text = text_of(found)
    for words in ("against A", "valid runs: A 5, B 5", "ttft_s.p50", "ms", "slower", "more is better in", "tokens/s"):
        assert words in text
    assert ratio_text(NOTHING) == "-"
    assert ratio_text(Interval(1.5, None, None)) == "1.500 (? .. ?)"
