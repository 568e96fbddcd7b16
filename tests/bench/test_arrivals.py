"""Arrival processes: their rate and spread on fixed seeds, their limits on any, and the words of their specs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from octavo.bench.arrivals import (
    ARRIVALS,
    Arrivals,
    Closed,
    Constant,
    Diurnal,
    Gamma,
    Horizon,
    Poisson,
    Ramp,
    Replay,
    Stepped,
    arrivals_name,
    parse_arrivals,
)
from octavo.bench.specs import canonical, describe
from octavo.errors import ConfigError

SEEDS = (1, 2, 3)


def times_of(process: Arrivals, count: int, duration_s: float = math.inf, seed: int = 0) -> np.ndarray:
    return process.times(Horizon(count, duration_s), np.random.default_rng(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("process", "cv"),
    [
        (Poisson(rate=5), 1.0),
        (Gamma(rate=5, burstiness=0.25), 2.0),
        (Gamma(rate=5, burstiness=1), 1.0),
        (Gamma(rate=5, burstiness=4), 0.5),
        (Constant(rate=5), 0.0),
    ],
)
def test_mean_rate_and_coefficient_of_variation(process: Arrivals, cv: float, seed: int) -> None:
    """Gaps of mean 1 / rate and CV = 1 / sqrt(shape): within five standard errors of 40,000 gaps."""
    gaps = np.diff(times_of(process, 40_001, seed=seed))
    assert gaps.mean() == pytest.approx(0.2, abs=5 * 0.2 * cv / 200 + 1e-9)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_poisson_gaps_are_exponential_and_gamma_gaps_gamma(seed: int) -> None:
    gaps = np.diff(times_of(Poisson(rate=5), 5_000, seed=seed))
    assert stats.kstest(gaps, stats.expon(scale=0.2).cdf).pvalue > 0.001
    gaps = np.diff(times_of(Gamma(rate=5, burstiness=0.5), 5_000, seed=seed))
    assert stats.kstest(gaps, stats.gamma(0.5, scale=0.4).cdf).pvalue > 0.001


def integrated(process: Arrivals, t: np.ndarray) -> np.ndarray:
    """The integral of the rate from 0 to each t, by fine summation: independent of the closed forms under test."""
    grid = np.linspace(0, 120, 240_001)
    if isinstance(process, Ramp):
        rate = process.from_ + (process.to - process.from_) * grid / 120
    elif isinstance(process, Stepped):
        rate = np.array(process.rates)[np.minimum((grid / process.hold).astype(int), len(process.rates) - 1)]
    else:
        assert isinstance(process, Diurnal)
        rate = process.low + (process.high - process.low) * np.sin(math.pi * grid / process.period) ** 2
    return np.interp(t, grid, np.concatenate([[0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(grid))]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "process",
    [
        Ramp(from_=2, to=80),
        Ramp(from_=80, to=0),
        Ramp(from_=0, to=50, over=120),
        Ramp(from_=30, to=30),
        Stepped(rates=(10, 0, 80, 20), hold=30),
        Diurnal(period=50, low=5, high=60),
        Diurnal(period=35, low=0, high=60),
    ],
    ids=str,
)
def test_a_changing_rate_is_followed(process: Arrivals, seed: int) -> None:
    """Through the integrated rate, the arrivals are a unit-rate Poisson process: exponential gaps, total within 5 sigma."""
    unit = integrated(process, times_of(process, 100_000, 120.0, seed))
    assert stats.kstest(np.diff(unit, prepend=0.0), stats.expon.cdf).pvalue > 0.001
    expected = integrated(process, np.array([120.0]))[0]
    assert len(unit) == pytest.approx(expected, abs=5 * math.sqrt(expected))


rates = st.floats(0.01, 1000)
processes = st.one_of(
    st.builds(Constant, rate=rates),
    st.builds(Poisson, rate=rates),
    st.builds(Gamma, rate=rates, burstiness=st.floats(0.01, 100)),
    st.builds(Ramp, from_=st.floats(0, 100), to=st.floats(0, 100)),
    st.builds(Stepped, rates=st.lists(st.floats(0, 100), min_size=1, max_size=5).map(tuple), hold=st.floats(0.1, 100)),
    st.builds(Diurnal, period=st.floats(0.1, 1e4), low=st.floats(0, 10), high=st.floats(10, 100)),
)


@settings(max_examples=200, deadline=None)
@given(processes, st.integers(1, 500), st.floats(0.1, 1000), st.integers(0, 2**32))
def test_times_are_sorted_within_the_horizon_and_repeatable(
    process: Arrivals, count: int, duration_s: float, seed: int
) -> None:
    times = times_of(process, count, duration_s, seed)
    assert len(times) <= count
    assert np.isfinite(times).all() and (np.diff(times) >= 0).all()
    assert ((times >= 0) & (times < duration_s)).all()
    assert times.tobytes() == times_of(process, count, duration_s, seed).tobytes()
    # more of the same: a longer count begins with the shorter one
    assert times.tobytes() == times_of(process, 2 * count, duration_s, seed)[: len(times)].tobytes()


def test_constant_is_exact() -> None:
    assert times_of(Constant(rate=4), 5).tolist() == [0, 0.25, 0.5, 0.75, 1.0]
    assert len(times_of(Constant(rate=4), 100, 2.0)) == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gamma:burstiness=0.5,rate=4", Gamma(burstiness=0.5, rate=4)),
        ("ramp:from=1,to=8", Ramp(from_=1, to=8)),
        ("stepped:rates=1;2;4,hold=30", Stepped(rates=(1, 2, 4), hold=30)),
        ("stepped:rates=2", Stepped(rates=(2,))),
        ("diurnal:period=60,low=1,high=8", Diurnal(period=60, low=1, high=8)),
        ("closed:users=8,think=0.5", Closed(users=8, think=0.5)),
        ("trace:speed=2", Replay(speed=2)),
        (" poisson : rate = 3 ", Poisson(rate=3)),
    ],
)
def test_specs(text: str, expected: Arrivals) -> None:
    pace = parse_arrivals(text)
    assert pace == expected
    assert parse_arrivals(canonical(arrivals_name(pace), pace)) == expected


def test_flags_fill_in_what_the_spec_leaves_open() -> None:
    assert parse_arrivals("poisson", rate=4) == Poisson(rate=4)
    assert parse_arrivals("poisson:rate=4", rate=4) == Poisson(rate=4)
    assert parse_arrivals("gamma", rate=2) == Gamma(rate=2)
    assert parse_arrivals("trace", speed=3) == Replay(speed=3)


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("poison", {}, "unknown arrivals 'poison'; did you mean 'poisson'? known: constant, poisson"),
        ("poisson", {}, "need a rate: give --rate 4, or write poisson:rate=4"),
        ("poisson", {"rate": 0.0}, "above zero"),
        ("poisson", {"rate": math.nan}, "above zero"),
        ("poisson:rate=2", {"rate": 3.0}, "--rate 3 contradicts rate=2"),
        ("poisson:rate=-1", {}, "rate = '-1': expected"),
        ("poisson:rate=nan", {}, "rate = "),
        ("poisson:rate=1e12", {}, "rate = "),
        ("closed", {"rate": 3.0}, "--rate belongs to constant, poisson and gamma"),
        ("poisson", {"rate": 3.0, "speed": 2.0}, "--speed belongs to the replay of a trace"),
        ("gamma:burst=2", {}, "unknown setting 'burst'; did you mean 'burstiness'"),
        ("ramp:form=1", {}, "did you mean 'from'"),
        ("ramp:from=x", {}, "from = 'x': expected"),
        ("ramp:from", {}, "'from' is not key=value"),
        ("ramp:to=", {}, "'to=' is not key=value"),
        ("ramp:to=1,to=2", {}, "given twice"),
        ("stepped:rates=1;x", {}, "rates = "),
        ("diurnal:low=9,high=2", {}, "low = 9 is above high = 2"),
        ("closed:users=0", {}, "users = '0'"),
        ("closed:users=1.5", {}, "users = '1.5'"),
        ("", {}, "unknown arrivals ''"),
    ],
)
def test_what_is_refused(text: str, flags: dict[str, float], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_arrivals(text, **flags)
    assert expected in caught.value.message


def test_a_ramp_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="ramp:over=60"):
        times_of(Ramp(), 10)


def test_every_process_describes_itself() -> None:
    words = describe(ARRIVALS)
    assert words["ramp"].endswith("Parameters: from=1.0, to=8.0, over=0.0.")
    assert all("Parameters" in line for line in words.values())
