"""Durations with units, ``500ms``, ``2s``, ``80us``, parsed to seconds.

A target without its unit is refused: 50 may be meant in two of them. How long a run lasts is in the order of seconds, so there
a bare number is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from octavo.errors import ConfigError

UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
RUN_UNITS_S = {"s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(text: str, what: str = "duration") -> float:
    """Seconds of ``500ms``, ``2s``, ``80us``. Raises ``ConfigError`` that names the missing or unknown unit."""
    return _parse(text, what, UNITS_S)


def parse_run_time(text: str, what: str = "duration") -> float:
    """Seconds of ``60``, ``60s``, ``2m``, ``1h``. Raises ``ConfigError`` for what is no time above zero."""
    bare = text.strip()
    return _parse(bare if bare[-1:].isalpha() else f"{bare}s", what, RUN_UNITS_S)


def _parse(text: str, what: str, units: Mapping[str, float]) -> float:
    match = re.fullmatch(r"\s*([0-9.eE+-]*[0-9.])\s*([^\W\d_]*)\s*", text)
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise ConfigError(f"{what}={text!r} is not a time; write a number and its unit, e.g. {what}=500ms", param=what)
    unit = match[2]
    if not unit:
        raise ConfigError(
            f"{what}={text!r} has no unit; write {what}={text.strip()}ms or {what}={text.strip()}s (units: s, ms, us)",
            param=what,
        )
    if unit not in units:
        raise ConfigError(f"{what}={text!r}: unknown unit {unit!r}; units: {', '.join(units)}", param=what)
    if number <= 0:
        raise ConfigError(f"{what}={text!r}: expected a time above zero", param=what)
    return number * units[unit]
