"""SLOs from the command line: every value with its unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.slo import parse_slo
from octavo.bench.types import Slo
from octavo.durations import RUN_UNITS_S, UNITS_S, parse_duration, parse_run_time
from octavo.errors import ConfigError


def test_the_units() -> None:
    assert parse_slo("ttft=500ms,tpot=50ms") == Slo(ttft_s=0.5, tpot_s=0.05)
    assert parse_slo(" e2e = 2.5s ") == Slo(e2e_s=2.5)
    assert parse_duration("80us") == pytest.approx(80e-6)
    assert parse_duration("1e-3s") == 1e-3


def test_how_long_a_run_lasts_is_in_seconds_unless_said() -> None:
    assert parse_run_time("60") == parse_run_time(" 60s ") == parse_run_time("1m") == parse_run_time("1min") == 60.0
    assert parse_run_time("1.5") == 1.5 and parse_run_time("250ms") == 0.25 and parse_run_time("1e2") == 100.0
    assert parse_run_time("0.5h") == 1800.0
    for text in ("0s", "-5", "soon", "", "inf", "3 days", "1e999", "4us"):
        with pytest.raises(ConfigError, match="duration="):
            parse_run_time(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ttft=500", "ttft='500' has no unit; write ttft=500ms or ttft=500s"),
        ("ttft=500ms,tpot=50", "tpot='50' has no unit"),
        ("e2e=1min", "unknown unit 'min'; units: s, ms, us"),
        ("tftt=1s", "unknown SLO 'tftt'; did you mean 'ttft'"),
        ("itl=1s", "known: ttft, tpot, e2e"),
        ("ttft=1s,ttft=2s", "given twice"),
        ("ttft=0ms", "above zero"),
        ("ttft=-5ms", "above zero"),
        ("ttft=fastms", "is not a time"),
        ("ttft=1.2.3s", "is not a time"),
        ("ttft=nans", "is not a time"),
        ("ttft=1e999s", "is not a time"),
        ("ttft", "is not name=time"),
        ("", "is not name=time"),
    ],
)
def test_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_slo(text)
    assert expected in caught.value.message


@given(st.floats(1e-3, 1e6), st.sampled_from(sorted(UNITS_S)))
def test_every_positive_time_is_read_as_written(number: float, unit: str) -> None:
    assert parse_duration(f"{number!r}{unit}") == number * UNITS_S[unit]


@given(st.floats(1e-3, 1e6), st.sampled_from(["", *sorted(RUN_UNITS_S)]))
def test_every_run_time_is_read_as_written(number: float, unit: str) -> None:
    assert parse_run_time(f"{number!r}{unit}") == number * RUN_UNITS_S[unit or "s"]


@given(st.text(alphabet="tfpoe2=smun,.-+1 x\u0663", max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        slo = parse_slo(text)
    except ConfigError:
        return
    assert any(value is not None and value > 0 for value in (slo.ttft_s, slo.tpot_s, slo.e2e_s))
