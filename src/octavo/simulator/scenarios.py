"""Adversarial scheduling scenarios from issues and papers: arrivals, setup and the metric that shows the failure.

The sources are issues and papers of other projects; numbers follow them (a 600K-token prefill, 632 requests in a minute).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from octavo.scheduler.classes import ServiceClasses
from octavo.simulator.accounting import Ended
from octavo.simulator.machine import find_machine
from octavo.simulator.replay import Replay, Setup
from octavo.simulator.traffic import Arrival, Mix, Row, arrivals_of


@dataclass(frozen=True, slots=True)
class Scenario:
    """``measure`` reads its metric, in ``unit``, off a replay; less is better."""

    name: str
    arrivals: list[Arrival]
    setup: Setup
    measure: Callable[[Replay], float]
    unit: str


def scenarios(azure_code: Sequence[Row]) -> list[Scenario]:
    """Fresh ones; the same every time. ``azure_code``: that trace."""
    return [
        urgent_against_full_slots(),
        preempted_among_later_ones(),
        stranger_among_cache_hits(),
        short_behind_huge_prefill(),
        decodes_beside_long_prefill(),
        greedy_among_polite(),
        overload(3.0),
        burst_after_silence(azure_code),
        never_fitting_in_the_middle(),
        liars_among_honest(),
    ]


def urgent_against_full_slots() -> Scenario:
    """vllm#40004: an urgent waiter cannot take a slot when all are full."""
    held = [Arrival(f"b{i}", 0.0, 500, 5000, 6000, "batch") for i in range(8)]
    urgent = Arrival("urgent", 1.0, 200, 5, 10, "interactive", priority=-1)
    return Scenario(
        "an urgent request, all slots taken",
        [*held, urgent],
        Setup(find_machine("h200-8b"), max_num_running=8),
        lambda done: _ttft(done, "urgent"),
        "s to its first token",
    )


def preempted_among_later_ones() -> Scenario:
    """A preempted request goes back to the end of the queue. Here the cache holds nine as they start, five as they end."""
    return Scenario(
        "preempted for want of memory, others behind",
        [Arrival(f"r{i}", 0.02 * i, 500, 400, 500, "batch", f"t{i % 2}") for i in range(30)],
        Setup(replace(find_machine("h200-8b"), kv_tokens=4_800), max_num_running=16),
        lambda done: sum(_overtaken(done, one) for one in done.ended if one.timings.num_preemptions),
        "later ones that ended before a preempted one",
    )


def stranger_among_cache_hits() -> Scenario:
    """sglang#31954: longest-prefix-first leaves requests without a shared prefix waiting."""
    family = [Arrival(f"f{i}", i * 0.01, 1500, 20, 50, "standard", hash_ids=(1, 2, i)) for i in range(150)]
    stranger = Arrival("stranger", 0.5, 1500, 20, 50, "standard", "other", hash_ids=(7, 8, 9))
    return Scenario(
        "no shared prefix, among many that share one",
        sorted([*family, stranger], key=_arrival),
        Setup(find_machine("h200-8b"), max_num_running=8),
        lambda done: _ttft(done, "stranger"),
        "s to its first token",
    )


def short_behind_huge_prefill() -> Scenario:
    """ROCm/ATOM#1835: a 101-token request waits 82 s behind a 600K-token prefill."""
    return Scenario(
        "101 tokens behind a prefill of 600,000",
        [Arrival("huge", 0.0, 600_000, 5, 10, "batch"), Arrival("short", 0.5, 101, 5, 10, "interactive")],
        Setup(find_machine("h200-8b")),
        lambda done: _ttft(done, "short"),
        "s to its first token",
    )


def decodes_beside_long_prefill() -> Scenario:
    """A long prefill that drops decode from 270 to 6.6 tokens/s."""
    talks = [Arrival(f"d{i}", 0.0, 100, 300, 400, "interactive") for i in range(8)]
    return Scenario(
        "decodes beside a prefill of 200,000",
        [*talks, Arrival("long", 1.0, 200_000, 5, 10, "batch")],
        Setup(find_machine("h200-8b"), max_step_tokens=4096),
        lambda done: max(one.timings.tpot_s or 0.0 for one in done.ended if one.service_class.name == "interactive"),
        "s per token at worst",
    )


def greedy_among_polite() -> Scenario:
    """One tenant sends 600 requests in a second, nine others 90 in ten."""
    rng = random.Random(3)  # noqa: S311 - a plan of traffic
    greedy = [Arrival(f"g{i}", 0.001 * i, 1000, 30, 100, "standard", "greedy") for i in range(600)]
    polite = [Arrival(f"p{i}", rng.uniform(0, 10), 1000, 30, 100, "standard", f"p{i % 9}") for i in range(90)]
    return Scenario(
        "one greedy tenant among nine polite ones",
        sorted([*greedy, *polite], key=_arrival),
        Setup(find_machine("h200-8b"), max_num_running=32),
        lambda done: sum(not one.slo_attained for one in done.ended if one.arrival.tenant != "greedy"),
        "SLO violations of 90 polite requests",
    )


def overload(factor: float) -> Scenario:
    """Three classes at ``factor`` times 30 requests/s, which is about what the machine can do."""
    rng, now, found = random.Random(0), 0.0, []  # noqa: S311 - a plan of traffic
    names = ("interactive", "standard", "batch")
    for i in range(int(200 * factor)):
        now += rng.expovariate(30.0 * factor)
        found.append(Arrival(f"r{i}", now, 1000, 60, 1000, names[i % 3], f"t{i % 2}", priority=i % 3))
    return Scenario(
        f"{factor:g} times what the machine can do",
        found,
        Setup(find_machine("h200-8b")),
        lambda done: sum(not one.slo_attained for one in done.ended),
        f"SLO violations of {len(found)} requests",
    )


def burst_after_silence(azure_code: Sequence[Row]) -> Scenario:
    """632 requests in a minute after silence, as the Azure code trace has them, on a machine that cannot take them."""
    drawn = arrivals_of(azure_code[-476:], 632, ServiceClasses(), Mix((0.4, 0.4, 0.2)))
    urgent = sum(one.service_class == "interactive" for one in drawn)
    return Scenario(
        "632 requests in a minute, after silence",
        [replace(one, arrival_s=60.0 + 60.0 * i / 632) for i, one in enumerate(drawn)],
        Setup(find_machine("h200-70b-fp8")),
        lambda done: sum(not one.slo_attained for one in done.ended if one.service_class.name == "interactive"),
        f"SLO violations of {urgent} interactive requests",
    )


def never_fitting_in_the_middle() -> Scenario:
    """A request that can never fit hangs the queue behind it for ever; here it is refused at once."""
    machine = find_machine("h200-8b")
    return Scenario(
        "behind one that can never fit",
        [
            Arrival("before", 0.0, 100, 5, 10),
            Arrival("never", 0.1, machine.kv_tokens + 1, 5, 10),
            Arrival("behind", 0.2, 100, 5, 10),
        ],
        Setup(machine),
        lambda done: _ttft(done, "behind"),
        "s to its first token",
    )


def liars_among_honest() -> Scenario:
    """Half of the clients state the highest priority and the shortest answer, whatever is true."""
    rng, now, honest = random.Random(0), 0.0, []  # noqa: S311 - a plan of traffic
    for i in range(100):
        now += rng.expovariate(40.0)
        honest.append(
            Arrival(f"h{i}", now, 1000, 60, 1000, ("interactive", "standard", "batch")[i % 3], "honest", i % 3)
        )
    liars = [
        replace(one, request_id=f"l{i}", tenant="liars", priority=-100, max_tokens=61) for i, one in enumerate(honest)
    ]
    return Scenario(
        "clients that lie about length and priority",
        sorted([*honest, *liars], key=_arrival),
        Setup(find_machine("h200-8b")),
        lambda done: _mean_ttft(done, "honest") / _mean_ttft(done, "liars"),
        "times sooner served than honest ones",
    )


def _overtaken(done: Replay, late: Ended) -> int:
    """How many that came after it ended before it."""
    return sum(
        one.arrival.arrival_s > late.arrival.arrival_s and _end_s(one) < _end_s(late) - 1e-9 for one in done.ended
    )


def _end_s(one: Ended) -> float:
    return one.arrival.arrival_s + (one.timings.e2e_s or 0.0)


def _mean_ttft(done: Replay, tenant: str) -> float:
    return fmean(one.timings.ttft_s or 0.0 for one in done.ended if one.arrival.tenant == tenant)


def _ttft(done: Replay, request_id: str) -> float:
    return next(one.timings.ttft_s or 0.0 for one in done.ended if one.arrival.request_id == request_id)


def _arrival(one: Arrival) -> float:
    return one.arrival_s
