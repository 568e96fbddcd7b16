"""The search for the highest rate, on a queue whose capacity is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from octavo.bench.summary import summarise
from octavo.bench.sweep import Search, find_max_rate, knee_of, sweep
from octavo.bench.types import Outcome, Run, Slo
from octavo.errors import ConfigError
from support.simulated_runs import interval, latency, queue_records, run, summary

SLO = Slo(e2e_s=0.5)
CAPACITY = 10.0


def queue_runs(num: int, seed: int = 0) -> tuple[Callable[[float], Run], list[float]]:
    """``run_at`` of a server with ten requests per second of capacity, and the rates it was asked for."""
    rng, asked = np.random.default_rng(seed), []

    def run_at(rate: float) -> Run:
        asked.append(rate)
        return run(records=queue_records(rate, CAPACITY, num, rng))

    return run_at, asked


def true_share(rate: float) -> float:
    """Of a very long run, the share under the limit."""
    latencies = [one.e2e_s for one in queue_records(rate, CAPACITY, 100_000, np.random.default_rng(9))]
    return float(np.mean(np.array(latencies) <= SLO.e2e_s))


def test_the_highest_rate_is_found_in_noise() -> None:
    search = Search(share=0.95, tolerance=0.05)
    found = []
    for seed in range(3):
        run_at, asked = queue_runs(1500, seed)
        result = find_max_rate(run_at, SLO, [1.0, 20.0], search)
        assert result.rate is not None and result.beyond is not None
        assert 1.0 < result.beyond / result.rate <= 1.05
        assert len(asked) <= len(result.trials) * search.max_repeats
        found.append(result.rate)
    assert true_share(float(np.median(found)) * 0.9) >= 0.95
    assert true_share(float(np.median(found)) * 1.12) < 0.95


def test_clear_rates_take_one_run_and_close_ones_are_repeated() -> None:
    run_at, _ = queue_runs(800)
    result = find_max_rate(run_at, SLO, [1.0, 20.0], Search(share=0.95))
    by_rate = {trial.rate: trial for trial in result.trials}
    assert by_rate[1.0].num_runs == by_rate[20.0].num_runs == 1
    assert max(trial.num_runs for trial in result.trials) > 1
    for trial in result.trials:
        assert trial.share_low <= trial.share <= trial.share_high
        assert trial.num_requests == 800 * trial.num_runs
    assert result.rate == max(rate for rate, trial in by_rate.items() if trial.met and rate < result.beyond)  # type: ignore[operator]


def test_bounds_that_hold_no_edge() -> None:
    run_at, asked = queue_runs(400)
    below = find_max_rate(run_at, SLO, [0.5, 1.0])
    assert (below.rate, below.beyond) == (1.0, None) and set(asked) == {0.5, 1.0}
    above = find_max_rate(run_at, SLO, [30.0, 60.0])
    assert (above.rate, above.beyond) == (None, 30.0) and len(above.trials) == 1


def test_failed_requests_violate_the_slo() -> None:
    def run_at(rate: float) -> Run:
        records = queue_records(1.0, CAPACITY, 300, np.random.default_rng(1))
        for one in records[:: 1 if rate > 5 else 1000]:
            one.outcome = Outcome.FAILED
        return run(records=records)

    result = find_max_rate(run_at, SLO, [1.0, 10.0], Search(share=0.9))
    assert result.rate is not None and 4.7 <= result.rate <= 5.0


def test_a_request_is_judged_by_its_own_slo() -> None:
    """Classes: a batch request that takes long attains its SLO, an interactive one does not."""

    def run_at(rate: float) -> Run:
        records = queue_records(rate, CAPACITY, 1000, np.random.default_rng(3))
        for one in records[::2]:
            one.slo = Slo(e2e_s=60.0)
        for one in records[1::2]:
            one.slo = Slo(e2e_s=1.0)
        return run(records=records)

    shared = find_max_rate(queue_runs(1000, 3)[0], SLO, [1.0, 12.0], Search(share=0.9))
    own = find_max_rate(run_at, SLO, [1.0, 12.0], Search(share=0.9))
    assert own.rate is not None and shared.rate is not None and own.rate > 1.1 * shared.rate
    assert find_max_rate(run_at, Slo(), [1.0, 12.0], Search(share=0.9)).rate == own.rate


def test_the_rates_of_the_sweep_narrow_the_search_and_say_whether_the_slo_is_shown() -> None:
    run_at, asked = queue_runs(1500)
    found = find_max_rate(run_at, SLO, [16.0, 1.0, 2.0, 4.0, 8.0], Search(share=0.9))
    assert asked[:3] == [1.0, 2.0, 4.0] and found.rate is not None and 4 < found.rate < 10
    assert found.slo_check is not None and found.slo_check.share == 0.9
    assert found.trials[0].slo_check is not None and found.trials[0].slo_check.attained
    alone = find_max_rate(run_at, SLO, [1.0])
    assert (alone.rate, alone.beyond) == (1.0, None) and len(alone.trials) == 1


def test_an_invalid_and_a_growing_run_do_not_meet_the_slo() -> None:
    steady = queue_records(1.0, CAPACITY, 300, np.random.default_rng(1))
    growing = queue_records(12.0, CAPACITY, 300, np.random.default_rng(1))
    measured = summarise(growing, SLO, seed=1)
    assert measured.stationary is False

    def run_at(rate: float) -> Run:
        if rate > 8:
            return run(records=steady, valid=False, invalid_reason="the client could not keep up")
        return run(measured, records=growing) if rate > 4 else run(records=steady)

    result = find_max_rate(run_at, Slo(e2e_s=1e6), [1.0, 16.0], Search(share=0.9))
    reasons = {trial.rate: trial.reason for trial in result.trials}
    assert reasons[16.0] == "not valid: the client could not keep up"
    assert any("kept growing" in reason for reason in reasons.values())
    assert result.rate == pytest.approx(4.0, rel=0.05)


def test_warm_up_and_cancelled_requests_do_not_count() -> None:
    records = queue_records(1.0, CAPACITY, 200, np.random.default_rng(2))
    records[150].outcome = Outcome.CANCELLED
    late = summary(warm_up_s=records[50].intended_s)
    result = find_max_rate(lambda _: run(late, records=records), SLO, [1.0, 2.0])
    assert result.trials[0].num_requests % 149 == 0
    nothing = find_max_rate(lambda _: run(), SLO, [1.0, 2.0])
    assert nothing.rate is None and "too short" in nothing.trials[0].reason


def test_bad_bounds_are_refused() -> None:
    run_at, asked = queue_runs(10)
    for rates in ([], [1.0, 0.0], [float("nan")]):
        with pytest.raises(ConfigError, match="rates above zero"):
            sweep(run_at, rates)
        with pytest.raises(ConfigError, match="rates above zero"):
            find_max_rate(run_at, SLO, rates)
    assert asked == []


def test_a_sweep_goes_up_and_finds_the_knee() -> None:
    def run_at(rate: float) -> Run:
        e2e = 1 / (CAPACITY - rate)
        return run(summary(request_rate_rps=interval(rate), e2e_s=latency(e2e, 3 * e2e)), name=f"{rate:g}")

    runs = sweep(run_at, [9, 1, 5, 3, 7, 5])
    assert [one.name for one in runs] == ["1", "3", "5", "7", "9"]
    knee = knee_of(runs)
    assert knee is not None and knee.load == 5.0 and knee.reached
    runs[0].valid = runs[1].valid = False
    assert knee_of(runs) is not None
    assert knee_of(runs[:4]) is None
