"""Registry of scheduling policies by name: one line per policy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from octavo.errors import ConfigError
from octavo.scheduler.forecast import Forecast
from octavo.scheduler.policies.dlpm import DeficitLongestPrefixMatch
from octavo.scheduler.policies.edf import EarliestDeadlineFirst
from octavo.scheduler.policies.fcfs import Fcfs
from octavo.scheduler.policies.mlfq import SkipJoinMlfq
from octavo.scheduler.policies.priority import AgeingPriority, Priority
from octavo.scheduler.policies.qoserve import QoServe
from octavo.scheduler.policies.sarathi import Sarathi
from octavo.scheduler.policies.sjf import ShortestJobFirst
from octavo.scheduler.policies.slidingserve import SlidingServe
from octavo.scheduler.policies.slo import SlackFirst
from octavo.scheduler.policies.vtc import VirtualTokenCounters
from octavo.scheduler.policy import Policy

POLICIES: Mapping[str, Callable[[Forecast], Policy]] = MappingProxyType(
    {
        "fcfs": Fcfs,
        "priority": Priority,
        "priority-ageing": AgeingPriority,
        "sjf": ShortestJobFirst,
        "mlfq": SkipJoinMlfq,
        "vtc": VirtualTokenCounters,
        "dlpm": DeficitLongestPrefixMatch,
        "sarathi": Sarathi,
        "edf": EarliestDeadlineFirst,
        "qoserve": QoServe,
        "slidingserve": SlidingServe,
        "slo": SlackFirst,
    }
)


def make_policy(name: str, forecast: Forecast | None = None) -> Policy:
    """Raises ``ConfigError`` with the list of names."""
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown policy {name!r}; {hint}known: {', '.join(POLICIES)}", param="policy")
    return POLICIES[name](forecast or Forecast())
