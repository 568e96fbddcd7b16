"""The registry: one line a policy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from octavo.errors import ConfigError
from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policies.priority import Priority
from octavo.scheduler.policy import Policy

POLICIES: Mapping[str, Callable[[], Policy]] = MappingProxyType(
    {
        "fcfs": Fcfs,
        "priority": Priority,
    }
)


def make_policy(name: str) -> Policy:
    """Raises ``ConfigError`` with the list of names."""
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown policy {name!r}; {hint}known: {', '.join(POLICIES)}", param="policy")
    return POLICIES[name]()
