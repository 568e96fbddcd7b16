"""Load sweep of scheduling policies: SLO attainment at each load, and the knee."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from octavo.simulator.compare import compare
from octavo.simulator.replay import Replay, Setup, capacity_rps
from octavo.simulator.traffic import Arrival, at_rate
from octavo.simulator.upper_bound import max_attained


@dataclass(frozen=True, slots=True)
class Point:
    """One replay of a sweep. ``load``: of what the machine can do, see ``capacity_rps``;
    ``max_attainment``: the upper bound on ``attainment``, the same for every policy."""

    load: float
    rate_rps: float
    seed: int
    done: Replay
    max_attainment: float

    @property
    def attainment(self) -> float:
        """Share of requests whose SLO was attained; a refused one violates it."""
        return sum(one.slo_attained for one in self.done.ended) / max(1, len(self.done.ended) + len(self.done.refused))


def sweep(
    policies: Sequence[str],
    arrivals_of_seed: Callable[[int], list[Arrival]],
    setup: Setup,
    loads: Sequence[float],
    seeds: Sequence[int],
) -> Iterator[Point]:
    """Load by load, paired: for the same load and seed every policy gets the same requests at the same times."""
    drawn = {seed: arrivals_of_seed(seed) for seed in seeds}
    own = {seed: replace(setup, seed=seed) for seed in seeds}
    capacity = {seed: capacity_rps(drawn[seed], own[seed]) for seed in seeds}
    for load in loads:
        for seed in seeds:
            came = at_rate(drawn[seed], capacity[seed] * load)
            most = max_attained(came, own[seed]) / len(came)
            for done in compare(policies, came, own[seed]):
                yield Point(load, capacity[seed] * load, seed, done, most)


def knee(loads: Sequence[float], attainment: Sequence[float], target: float) -> float:
    """The highest load up to which SLO attainment is at least ``target``, loads ascending.

    Between two loads the share is taken to fall in a straight line. 0 if it is too low at the first one already, the last one
    if it never is: then the truth lies below and above them.
    """
    if not attainment or attainment[0] < target:
        return 0.0
    for i in range(1, len(loads)):
        if attainment[i] < target:
            return loads[i - 1] + (loads[i] - loads[i - 1]) * (attainment[i - 1] - target) / (
                attainment[i - 1] - attainment[i]
            )
    return loads[-1]
