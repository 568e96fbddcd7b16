"""The fixed scenarios of each suite, as data. To add a suite: one entry in ``SUITES``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from octavo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Scenario:
    """``users`` keep one request each in flight; as many requests as users are a burst. ``quick``: part of --quick."""

    name: str
    workload: str
    users: int
    num_requests: int
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Suite:
    """``repetitions`` of all scenarios; ``quick_repetitions`` of the quick ones."""

    rows: tuple[Scenario, ...]
    repetitions: int = 3
    quick_repetitions: int = 2


WARM_UP = (
    Scenario("warm-up", "synthetic:prompt=32,output=8", users=2, num_requests=2),
    Scenario("warm-up", "synthetic:prompt=128,output=8", users=16, num_requests=16),
)
WARM_UP_REPEAT = 1_000_000  # prompts that no scenario sends

_SHORT = "synthetic:prompt=128,output=128"

SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        "cpu": Suite(
            (
                Scenario("single", _SHORT, users=1, num_requests=2, quick=True),
                Scenario("prefill-1024", "synthetic:prompt=1024,output=1", users=1, num_requests=2, quick=True),
                Scenario("concurrent-1", _SHORT, users=1, num_requests=1),
                Scenario("concurrent-4", _SHORT, users=4, num_requests=4, quick=True),
                Scenario("concurrent-16", _SHORT, users=16, num_requests=16),
                Scenario("concurrent-32", _SHORT, users=32, num_requests=32),
                Scenario("concurrent-64", _SHORT, users=64, num_requests=64),
                Scenario("shared-prefix", "shared-prefix:prefix=512,prompt=64,output=64", users=8, num_requests=24),
                Scenario("mixed", "mixed:scale=0.25", users=8, num_requests=24),
            )
        ),
    }
)


def find_suite(name: str) -> Suite:
    """Raises ``ConfigError`` naming those that there are."""
    if name not in SUITES:
        raise ConfigError(f"unknown suite {name!r}; known: {', '.join(SUITES)}", param="suite")
    return SUITES[name]


def choose_scenarios(suite: Suite, names: str = "", *, quick: bool = False) -> tuple[Scenario, ...]:
    """The scenarios named ``a,b,c``; without names all, or the quick ones. Raises ``ConfigError`` for unknown names."""
    known = {row.name: row for row in suite.rows}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"unknown scenario {name!r}; known: {', '.join(known)}", param="rows")
    if wanted:
        return tuple(known[name] for name in dict.fromkeys(wanted))
    return tuple(row for row in suite.rows if row.quick or not quick)
