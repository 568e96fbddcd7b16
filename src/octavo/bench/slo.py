"""Parser of ``--slo ttft=500ms,tpot=50ms``."""

from __future__ import annotations

import difflib

from octavo.bench.types import Slo
from octavo.durations import parse_duration
from octavo.errors import ConfigError

PROMISES = ("ttft", "tpot", "e2e")
EXAMPLE = "ttft=500ms,tpot=50ms"


def parse_slo(text: str) -> Slo:
    """Raises ``ConfigError`` for an unknown or doubled promise, a value without unit, or an empty text."""
    promised: dict[str, float] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ConfigError(f"SLO {item.strip()!r} is not name=time; write it as {EXAMPLE}", param="slo")
        if name not in PROMISES:
            near = difflib.get_close_matches(name, PROMISES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"unknown SLO {name!r}; {hint}known: {', '.join(PROMISES)}", param="slo")
        if name in promised:
            raise ConfigError(f"SLO {name!r} is given twice in {text!r}", param="slo")
        promised[name] = parse_duration(value, name)
    return Slo(ttft_s=promised.get("ttft"), tpot_s=promised.get("tpot"), e2e_s=promised.get("e2e"))
