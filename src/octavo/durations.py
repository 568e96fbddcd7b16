"""``500ms``, ``2s``, ``80us`` -> seconds. A number without its unit is refused: 50 may be meant in two of them."""

from __future__ import annotations

import math
import re

from octavo.errors import ConfigError

UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def parse_duration(text: str, what: str = "duration") -> float:
    """Seconds of ``500ms``, ``2s``, ``80us``. Raises ``ConfigError`` that names the missing or unknown unit."""
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
    if unit not in UNITS_S:
        raise ConfigError(f"{what}={text!r}: unknown unit {unit!r}; units: {', '.join(UNITS_S)}", param=what)
    if number <= 0:
        raise ConfigError(f"{what}={text!r}: a promised time is above zero", param=what)
    return number * UNITS_S[unit]
