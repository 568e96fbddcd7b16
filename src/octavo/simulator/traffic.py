"""Arrivals of a simulation: a recorded trace scaled to a load, with service classes and tenants drawn from a seed.

The same seed gives every policy the same requests at the same times.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from octavo.errors import ConfigError
from octavo.scheduler.classes import ServiceClasses

HASH_TOKENS = 512  # prompt tokens that one hash id of a trace stands for


class Row(Protocol):
    """A line of a trace, whoever read it."""

    @property
    def arrival_s(self) -> float: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_output_tokens(self) -> int: ...
    @property
    def hash_ids(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a simulation."""

    request_id: str
    arrival_s: float
    num_prompt_tokens: int
    num_output_tokens: int  # what it really generates
    max_tokens: int  # what the client allows
    service_class: str = ""
    tenant: str = ""
    priority: int = 0
    hash_ids: tuple[int, ...] = ()

    def prompt(self) -> list[int]:
        """Token ids; the same for the same hash id, else all alike (nothing then reads them)."""
        if not self.hash_ids:
            return [1] * self.num_prompt_tokens
        tokens: list[int] = []
        for one in self.hash_ids:
            tokens += [one + 2] * HASH_TOKENS
        return tokens[: self.num_prompt_tokens]


@dataclass(frozen=True, slots=True)
class Mix:
    """Who sends: the share of each class, in the order of ``ServiceClasses.all``, and how many equal tenants."""

    shares: tuple[float, ...]
    num_tenants: int = 4
    longest: int = 0  # requests with more tokens are left out; 0: none
    seed: int = 0


def arrivals_of(rows: Sequence[Row], num_requests: int, classes: ServiceClasses, mix: Mix) -> list[Arrival]:
    """The rows, repeated, until there are ``num_requests``, at the trace's own rate. Priority: the order of classes."""
    if len(mix.shares) != len(classes.all) or min(mix.shares) < 0 or sum(mix.shares) <= 0:
        raise ConfigError(
            f"{len(mix.shares)} shares ({mix.shares}) for {len(classes.all)} classes; expected one, zero or more, for each",
            param="shares",
        )
    fitting = [row for row in rows if not mix.longest or row.num_prompt_tokens + row.num_output_tokens < mix.longest]
    if not fitting:
        raise ConfigError(f"no request of the trace fits into {mix.longest} tokens", param="trace")
    rng = random.Random(mix.seed)  # noqa: S311 - a plan of traffic
    span_s = max(fitting[-1].arrival_s * (1 + 1 / len(fitting)), 1e-3)
    most = max(row.num_output_tokens for row in fitting)
    drawn = rng.choices(range(len(classes.all)), weights=mix.shares, k=num_requests)
    found = []
    for i, level in enumerate(drawn):
        row = fitting[i % len(fitting)]
        found.append(
            Arrival(
                request_id=f"r{i}",
                arrival_s=row.arrival_s + span_s * (i // len(fitting)),
                num_prompt_tokens=row.num_prompt_tokens,
                num_output_tokens=row.num_output_tokens,
                max_tokens=most,
                service_class=classes.all[level].name,
                tenant=f"t{rng.randrange(mix.num_tenants)}",
                priority=level,
                hash_ids=row.hash_ids,
            )
        )
    return found


def at_rate(arrivals: Sequence[Arrival], per_second: float) -> list[Arrival]:
    """The same arrivals, faster or slower, so that ``per_second`` come on average."""
    span_s = max(arrivals[-1].arrival_s, 1e-9)
    factor = (len(arrivals) / per_second) / span_s
    return [replace(one, arrival_s=one.arrival_s * factor) for one in arrivals]
