"""Parser of ``--slo ttft=500ms,tpot=50ms``."""

from __future__ import annotations

import difflib

from octavo.bench.types import Slo
from octavo.durations import parse_duration
from octavo.errors import ConfigError

TARGETS = ("ttft", "tpot", "e2e")
EXAMPLE = "ttft=500ms,tpot=50ms"


def parse_slo(text: str) -> Slo:
    """Raises ``ConfigError`` for an unknown or doubled target, a value without unit, or an empty text."""
    targets: dict[str, float] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ConfigError(f"SLO {item.strip()!r} is not name=time; write it as {EXAMPLE}", param="slo")
        if name not in TARGETS:
            near = difflib.get_close_matches(name, TARGETS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"unknown SLO {name!r}; {hint}known: {', '.join(TARGETS)}", param="slo")
        if name in targets:
            raise ConfigError(f"SLO {name!r} is given twice in {text!r}", param="slo")
        targets[name] = parse_duration(value, name)
    return Slo(ttft_s=targets.get("ttft"), tpot_s=targets.get("tpot"), e2e_s=targets.get("e2e"))
