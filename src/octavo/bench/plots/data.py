"""Data behind the plots and the report: steady-state latencies, and which runs belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octavo.bench.arrivals import Constant, Gamma, Poisson, parse_arrivals
from octavo.bench.plots.style import Look, look, shade, short
from octavo.bench.statistics.dependence import Array
from octavo.bench.types import Outcome, RequestRecord, Run
from octavo.errors import ConfigError


@dataclass(frozen=True)
class Metric:
    """A latency of a request, and how it is drawn."""

    key: str  # of the record and the summary
    name: str
    unit: str
    factor: float  # seconds -> unit


METRICS = (
    Metric("ttft_s", "TTFT", "ms", 1e3),
    Metric("tpot_s", "TPOT", "ms", 1e3),
    Metric("e2e_s", "E2E", "s", 1.0),
)


@dataclass(frozen=True)
class Series:
    """Runs of one name, in the order of their load, then of their time."""

    name: str
    runs: tuple[Run, ...]

    @property
    def rates(self) -> list[float]:
        return sorted({rate for run in self.runs if (rate := offered_rps(run)) is not None})

    @property
    def is_sweep(self) -> bool:
        return len(self.rates) > 1


def offered_rps(run: Run) -> float | None:
    """Requests per second that the plan sends; None where it has no such number (closed loop, trace, ramp)."""
    try:
        pace = parse_arrivals(run.arrivals)
    except ConfigError:
        return None
    return pace.rate if isinstance(pace, Constant | Poisson | Gamma) else None


def series_name(run: Run) -> str:
    """A sweep writes the rate behind the name of each of its runs; without it."""
    rate = offered_rps(run)
    return run.name if rate is None else run.name.removesuffix(f" {rate:g}/s")


def series_of(runs: Sequence[Run]) -> list[Series]:
    """In the order in which their names came."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(series_name(run), []).append(run)
    return [
        Series(name, tuple(sorted(found, key=lambda run: (offered_rps(run) or 0.0, run.created))))
        for name, found in members.items()
    ]


@dataclass(frozen=True)
class Styled:
    """A run as a line of a plot; ``label`` is empty for all but the first of its kind."""

    run: Run
    look: Look
    label: str


def styled(runs: Sequence[Run]) -> list[Styled]:
    """A colour per name; within a single sweep, a shade per rate."""
    found = series_of(runs)
    lines: list[Styled] = []
    seen: set[str] = set()
    for place, series in enumerate(found):
        rates = series.rates
        for run in series.runs:
            rate = offered_rps(run)
            if len(found) == 1 and series.is_sweep and rate is not None:
                how, label = shade(rates.index(rate), len(rates)), f"{rate:g}/s"
            else:
                how, label = look(place), short(series.name)
            lines.append(Styled(run, how, "" if label in seen else label))
            seen.add(label)
    return lines


def steady(run: Run) -> list[RequestRecord]:
    """Answered requests after the warm-up, in the order of intended sends: what the summary is taken over."""
    found = [one for one in run.records if one.outcome is Outcome.OK and one.intended_s >= run.summary.warm_up_s]
    return sorted(found, key=lambda one: one.intended_s)


def latencies(run: Run, key: str) -> Array:
    """Of the steady state, seconds, in the order of intended sends; requests that have none are left out."""
    values = (getattr(one, key) for one in steady(run))
    return np.array([value for value in values if value is not None], dtype=np.float64)


def size_of(runs: Sequence[Run]) -> str:
    """Sample size behind a plot."""
    num = sum(len(steady(run)) for run in runs)
    return f"{num} requests" if len(runs) == 1 else f"{num} requests, {len(runs)} runs"


def title_of(runs: Sequence[Run]) -> str:
    names = " and ".join(short(series.name, 24) for series in series_of(runs)[:3])
    return f"{names}{' …' if len(series_of(runs)) > 3 else ''} ({size_of(runs)})"
