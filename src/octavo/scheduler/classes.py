"""Service classes parsed from TOML: TTFT, TPOT, ``max_wait``, weight; contradicting values are refused.

    default = "standard"          # of requests that name none; without it they have no SLOs

    [[class]]
    name = "interactive"
    ttft = "500ms"
    tpot = "50ms"
    max_wait = "10s"
    weight = 1.0
    when_full = "refuse"          # or "degrade": to the class below, without SLOs at the end

A missing ``ttft``, ``tpot`` or ``max_wait`` sets no SLO (also spelled "none").
"""

from __future__ import annotations

import difflib
import math
import tomllib
from typing import Any

from octavo.config import refuse_unknown
from octavo.durations import parse_duration
from octavo.errors import ConfigError, InvalidRequestError
from octavo.types import DEFAULT_CLASS, ServiceClass

BUILT_IN = (
    ServiceClass(name="interactive", ttft_s=0.5, tpot_s=0.05, max_wait_s=60.0),
    ServiceClass(name="standard", ttft_s=2.0, tpot_s=0.1, max_wait_s=60.0),
    ServiceClass(name="batch", max_wait_s=60.0),
)
KEYS = ("name", "ttft", "tpot", "max_wait", "weight", "when_full")
WHEN_FULL = ("admit", "refuse", "degrade")


class ServiceClasses:
    """The classes of one server, by name. ``default`` is that of requests that name none."""

    def __init__(self, classes: tuple[ServiceClass, ...] = BUILT_IN, default: ServiceClass = DEFAULT_CLASS) -> None:
        self.all = classes
        self.default = default
        self._by_name = {one.name: one for one in classes}

    def find(self, name: str) -> ServiceClass:
        """Raises ``InvalidRequestError`` with the list of names."""
        if not name:
            return self.default
        if name not in self._by_name:
            near = difflib.get_close_matches(name, self._by_name, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidRequestError(
                f"unknown service_class {name!r}; {hint}known: {', '.join(self._by_name)}", param="service_class"
            )
        return self._by_name[name]


def parse_classes(text: str, source: str) -> ServiceClasses:
    """Raises ``ConfigError`` that names ``source``, the class, and what contradicts what."""
    try:
        table = tomllib.loads(text)
        refuse_unknown(table, ("default", "class"))
        entries = table.get("class", [])
        if not isinstance(entries, list) or not entries or not all(isinstance(one, dict) for one in entries):
            raise ConfigError("no [[class]] in it; write one with name, ttft, tpot, max_wait, weight", param="classes")
        classes = tuple(_class(entry) for entry in entries)
        names = [one.name for one in classes]
        if len(set(names)) < len(names):
            raise ConfigError(f"a class is given twice: {', '.join(names)}", param="classes")
        named = ServiceClasses(classes)
        default = named.find(str(table["default"])) if "default" in table else DEFAULT_CLASS
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}", param="classes") from None
    except (ConfigError, InvalidRequestError) as error:
        raise ConfigError(f"{source}: {error.message}", param="classes") from None
    return ServiceClasses(classes, default)


def _class(entry: dict[str, Any]) -> ServiceClass:
    refuse_unknown(entry, KEYS)
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError("a [[class]] has no name", param="classes")
    try:
        made = ServiceClass(
            name=name,
            ttft_s=_seconds(entry, "ttft"),
            tpot_s=_seconds(entry, "tpot"),
            max_wait_s=_seconds(entry, "max_wait"),
            weight=_weight(entry.get("weight", 1.0)),
            when_full=_when_full(entry.get("when_full", "admit")),
        )
    except ConfigError as error:
        raise ConfigError(f"class {name!r}: {error.message}", param="classes") from None
    if made.ttft_s is not None and made.max_wait_s is not None and made.max_wait_s < made.ttft_s:
        raise ConfigError(
            f"class {name!r}: max_wait = {made.max_wait_s:g} s is below ttft = {made.ttft_s:g} s: a request that may wait "
            "less than its first token may take; raise max_wait or lower ttft",
            param="classes",
        )
    return made


def _seconds(entry: dict[str, Any], key: str) -> float | None:
    value = entry.get(key, "none")
    if value == "none":
        return None
    return parse_duration(value if isinstance(value, str) else str(value), key)


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"weight = {value!r}: expected a number above zero", param="classes")
    return float(value)


def _when_full(value: Any) -> str:
    if value not in WHEN_FULL:
        raise ConfigError(f"when_full = {value!r}: expected one of {', '.join(WHEN_FULL)}", param="classes")
    return str(value)


def check_steps(classes: tuple[ServiceClass, ...], fastest_step_s: float) -> None:
    """Raise ``ConfigError`` for a target shorter than the fastest step that the machine can do."""
    for one in classes:
        for what, target_s in (("ttft", one.ttft_s), ("tpot", one.tpot_s)):
            if target_s is not None and target_s < fastest_step_s:
                raise ConfigError(
                    f"class {one.name!r}: {what} = {target_s * 1e3:g} ms, but one step takes at least "
                    f"{fastest_step_s * 1e3:.3g} ms here: no request could keep it; raise {what}",
                    param="classes",
                )
