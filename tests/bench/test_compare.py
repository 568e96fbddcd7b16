"""``compare`` finds what is there, stays silent where nothing is, and says what made a comparison unfair."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from rich.console import Console

from octavo.bench.compare import METRICS, compare, metric, runs_needed
from octavo.bench.compare_table import ratio_text, render
from octavo.bench.compare_warnings import interleaved as are_interleaved
from octavo.bench.types import Counts, Interval, Run, Slo
from octavo.errors import BenchError, ConfigError
from support.simulated_runs import NOTHING, Server, interleaved, interval, latency, run, summary


def text_of(comparison: object) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(render(comparison))  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def at(minute: int, **more: object) -> Run:
    return run(created=f"2026-11-21T09:{minute:02d}:00Z", **more)


@pytest.mark.parametrize("closed", [False, True])
def test_no_difference_is_called_none_in_95_percent_of_trials(closed: bool) -> None:
    rng = np.random.default_rng(21)
    server, silent = Server(size=300, between=0.04, closed=closed), 0
    for trial in range(60):
        found = compare(interleaved(server, server, 5, rng), seed=trial)
        silent += all(row.verdict == "no difference shown" for row in found.rows)
    assert silent >= 53  # 53 or more of 60 in 99 % for a true 95 %; the figure: docs/results/bench-statistics.md


@pytest.mark.parametrize(("between", "least"), [(0.02, 19), (0.03, 17), (0.04, 12)])
def test_ten_percent_in_the_medians_is_found_with_five_interleaved_runs(between: float, least: int) -> None:
    rng = np.random.default_rng(22)
    base = Server(between=between, size=1000, spread=0.3)
    slow = Server(slowness=1.1, between=between, size=1000, spread=0.3)
    found = [compare(interleaved(base, slow, 5, rng), seed=trial) for trial in range(20)]
    medians = [{row.verdict for row in one.rows if row.metric.endswith("p50")} for one in found]
    assert sum("slower" in verdicts for verdicts in medians) >= least
    assert not any(row.verdict == "faster" for one in found for row in one.rows)
    ratios = [next(row.ratio for row in one.rows if row.metric == "tpot_s.p50") for one in found]
    assert sum(one.low <= 1.1 <= one.high for one in ratios) >= 17  # type: ignore[operator]
    assert all(not one.warnings for one in found)


def test_one_metric_named_beforehand_finds_more() -> None:
    rng = np.random.default_rng(24)
    runs = [interleaved(Server(between=0.05, size=300), Server(1.1, 0.05, 300), 5, rng) for _ in range(20)]
    chosen = [compare(one, metrics=[metric("tpot_s.p50")]).rows[0].verdict for one in runs]
    among = [{row.metric: row.verdict for row in compare(one).rows}["tpot_s.p50"] for one in runs]
    assert chosen.count("slower") >= among.count("slower") + 3


def test_direction_of_the_verdict() -> None:
    def measured(factor: float, first: int) -> list[Run]:
        return [
            at(
                first + 2 * i,
                arrivals="closed:users=8",
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
    assert [(row.baseline, row.label) for row in found.rows] == [("A", "B")] * 4 + [("A", "C")] * 4
    assert any("8 tests" in warning and "take 6" in warning for warning in found.warnings)
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

    def tested(**more: object) -> list[str]:
        runs = {name: [at(2 * i + offset, **more) for i in range(5)] for offset, name in enumerate("AB")}
        return [row.metric for row in compare(runs).rows]

    medians, rates = ["ttft_s.p50", "ttft_s.p99", "tpot_s.p50"], ["output_tokens_per_s", "goodput_rps"]
    assert tested(found=same) == tested(found=same, slo=Slo(ttft_s=1.0)) == medians, "all of it was good"
    assert tested(found=summary(goodput_rps=interval(3.0))) == [*medians, rates[1]]
    assert tested(found=same, arrivals="closed:users=8") == [*medians, rates[0]], "no SLO, but throughput is news"
    assert tested(found=same, arrivals="closed:users=8", slo=Slo(ttft_s=1.0)) == [*medians, *rates]
    overloaded = summary(goodput_rps=interval(4.0), stationary=False)
    assert rates[0] in tested(found=overloaded) and rates[0] in tested(requests=Counts(ok=9, failed=1, timed_out=0))


def test_the_left_out_are_said_and_can_be_asked_for() -> None:
    runs = {name: [at(2 * i + offset) for i in range(5)] for offset, name in enumerate("AB")}
    assert "not tested: output_tokens_per_s, an open loop that keeps up" in text_of(compare(runs))
    chosen = compare(runs, metrics=[metric("output_tokens_per_s"), metric("e2e_s.p99")])
    assert [row.metric for row in chosen.rows] == ["output_tokens_per_s", "e2e_s.p99"]
    assert chosen.rows[1].baseline_values == [2.0] * 5 and chosen.rows[0].more_is_better and not chosen.left_out
    with pytest.raises(ConfigError, match=r"unknown metric 'ttft.p50'; did you mean 'ttft_s.p50'"):
        metric("ttft.p50")


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
    orders = {"ABABABABAB": True, "AABBABABBA": True, "AAAABABBBB": False, "AAAAABBBBA": False, "AB": True, "ABB": True,
              "AABB": False, "ABBA": True, "AAAAAAB": True, "ABCABC": True, "AABBCC": False}  # fmt: skip
    for order, fair in orders.items():
        runs = {name: [at(i) for i, one in enumerate(order) if one == name] for name in sorted(set(order))}
        assert are_interleaved(runs) == fair, order
    mixed = [at(i, commit="abc" if i else "def") for i in range(5)]
    assert any("several commits under one label" in one for one in compare({"A": mixed, "B": blocks["B"]}).warnings)


def test_the_table_says_it_all() -> None:
    rng = np.random.default_rng(23)
    found = compare(interleaved(Server(between=0.005, closed=True), Server(2.0, 0.005, closed=True), 5, rng))
    text = text_of(found)
    for words in ("against A", "valid runs: A 5, B 5", "ttft_s.p50", "ms", "slower", "more is better in", "tokens/s"):
        assert words in text
    assert ratio_text(NOTHING) == "-"
    assert ratio_text(Interval(1.5, None, None)) == "1.500 (? .. ?)"
