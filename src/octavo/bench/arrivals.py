"""Arrival processes (constant, Poisson, gamma, ramp, stepped, diurnal, closed): the intended send times of a plan, in seconds.

Times are intended send times since the start of the run, in order, all computed before the first request. Processes with a
rate that changes over time are Poisson processes by inversion of the integrated rate (Cinlar, Introduction to Stochastic
Processes, 1975, ch. 4.7): if E_1 < E_2 < ... are the arrivals of a unit-rate Poisson process, Lambda^-1(E_i) are those of the
process with Lambda(t) = integral of rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from octavo.bench.specs import build
from octavo.errors import ConfigError

Times: TypeAlias = NDArray[np.float64]
Rate = Annotated[float, Meta(ge=0, le=1e6, description="requests per second; 0: from --rate")]
Level = Annotated[float, Meta(ge=0, le=1e6)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class Horizon(msgspec.Struct, frozen=True):
    """Where to stop: after ``count`` requests, or before ``duration_s``, whichever comes first."""

    count: int
    duration_s: float = math.inf


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process of arrivals that does not depend on responses (an open loop)."""

    def times(self, horizon: Horizon, rng: np.random.Generator) -> Times:
        raise NotImplementedError


class Constant(Arrivals, frozen=True):
    """Evenly spaced: t_i = i / rate."""

    rate: Rate = 0.0

    def times(self, horizon: Horizon, rng: np.random.Generator) -> Times:
        times = np.arange(horizon.count) / self.rate
        return times[times < horizon.duration_s]


class Poisson(Arrivals, frozen=True):
    """Independent users: exponential gaps of mean 1 / rate, coefficient of variation 1."""

    rate: Rate = 0.0

    def times(self, horizon: Horizon, rng: np.random.Generator) -> Times:
        times = np.cumsum(rng.exponential(1 / self.rate, horizon.count))
        return times[times < horizon.duration_s]


class Gamma(Arrivals, frozen=True):
    """Bursty (burstiness < 1) or even (> 1): gamma gaps, mean 1 / rate, CV = 1 / sqrt(burstiness).

    The parameter is vLLM's: the shape of the gamma distribution (``benchmark_serving --burstiness``); 1 is Poisson.
    """

    burstiness: Annotated[float, Meta(gt=0, le=1e6)] = 0.5
    rate: Rate = 0.0

    def times(self, horizon: Horizon, rng: np.random.Generator) -> Times:
        gaps = rng.gamma(self.burstiness, 1 / (self.rate * self.burstiness), horizon.count)
        times = np.cumsum(gaps)
        return times[times < horizon.duration_s]


class Ramp(Arrivals, frozen=True):
    """Poisson whose rate goes linearly from ``from`` to ``to`` over ``over`` seconds (0: the run's duration), then ends.

    Lambda(t) = from t + (to - from) t^2 / (2 over).
    """

    from_: Level = 1.0
    to: Level = 8.0
    over: Seconds = 0.0

    def times(self, horizon: Horizon, rng: np.random.Generator) -> Times:
        over = self.over or horizon.duration_s
        if not math.isfinite(over):
            raise ConfigError("a ramp needs its length: give --duration, or ramp:over=60", param="arrivals")
        slope = (self.to - self.from_) / over
        unit = _unit_poisson((self.from_ + self.to) / 2 * over, horizon.count, rng)
        root = np.sqrt(np.maximum(self.from_**2 + 2 * slope * unit, 0.0))
        times: Times = 2 * unit / (self.from_ + root)  # the root of the quadratic that stays exact for a flat ramp
        return times[times < horizon.duration_s]


class Stepped(Arrivals, frozen=True):
    """Poisson at each rate of ``rates`` for ``hold`` seconds, one after the other, then ends. Lambda is piecewise linear."""

    rates: tuple[Level, ...] = (1.0, 2.0, 4.0)
    hold: Annotated[float, Meta(gt=0, le=1e9)] = 30.0

    def times(self, horizon: Horizon, rng: np.random.Generator) -> Times:
        integrated = np.concatenate([[0.0], np.cumsum(self.rates) * self.hold])
        unit = _unit_poisson(integrated[-1], horizon.count, rng)
        times: Times = np.interp(unit, integrated, self.hold * np.arange(len(integrated)))
        return times[times < horizon.duration_s]


class Diurnal(Arrivals, frozen=True):
    """Poisson with the day's wave, from trough to peak and back in ``period`` seconds:

    rate(t) = low + (high - low) (1 - cos(2 pi t / period)) / 2,
    Lambda(t) = (low + high) t / 2 - (high - low) period sin(2 pi t / period) / (4 pi).
    """

    GRID: ClassVar[int] = 8192  # points a period for the numerical inverse

    period: Annotated[float, Meta(gt=0, le=1e9)] = 60.0
    low: Level = 1.0
    high: Annotated[float, Meta(gt=0, le=1e6)] = 8.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"low = {self.low:g} is above high = {self.high:g}")

    def times(self, horizon: Horizon, rng: np.random.Generator) -> Times:
        phase = np.linspace(0.0, 1.0, self.GRID + 1)
        mean = (self.low + self.high) / 2
        swing = (self.high - self.low) / (4 * math.pi)
        integrated = self.period * (mean * phase - swing * np.sin(2 * math.pi * phase))
        unit = _unit_poisson(math.inf, horizon.count, rng)
        periods, rest = np.divmod(unit, mean * self.period)
        times = self.period * (periods + np.interp(rest, integrated, phase))
        return times[times < horizon.duration_s]


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The recorded times of a trace workload, ``speed`` times as fast. (``--speed`` sets it as well.)"""

    speed: Annotated[float, Meta(gt=0, le=1e6)] = 1.0

    def send_s(self, recorded_s: float) -> float:
        return recorded_s / self.speed


class Closed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A closed loop: ``users`` that each keep one request in flight and pause ``think`` seconds after a response."""

    users: Annotated[int, Meta(ge=1, le=100_000)] = 1
    think: Seconds = 0.0


Pace: TypeAlias = Arrivals | Replay | Closed
P = TypeVar("P", bound=msgspec.Struct)

ARRIVALS: Mapping[str, type[Arrivals] | type[Replay] | type[Closed]] = MappingProxyType(
    {
        "constant": Constant,
        "poisson": Poisson,
        "gamma": Gamma,
        "ramp": Ramp,
        "stepped": Stepped,
        "diurnal": Diurnal,
        "closed": Closed,
        "trace": Replay,
    }
)


def parse_arrivals(text: str, rate: float | None = None, speed: float | None = None) -> Pace:
    """``gamma:burstiness=0.5`` -> its process; ``rate`` and ``speed`` are the flags of the same name, for specs without them.

    Raises ``ConfigError``: unknown name or parameter, no rate, or a flag that contradicts the spec.
    """
    pace = build(text, ARRIVALS, "arrivals")
    name = arrivals_name(pace)
    if speed is not None:
        if not isinstance(pace, Replay):
            raise ConfigError(f"--speed belongs to the replay of a trace, not to {name!r} arrivals", param="speed")
        pace = _override(pace, "speed", speed, Replay().speed)
    if not isinstance(pace, Constant | Poisson | Gamma):
        if rate is not None:
            raise ConfigError(
                f"--rate belongs to constant, poisson and gamma arrivals; {name!r} has its own times", param="rate"
            )
        return pace
    if rate is not None:
        pace = _override(pace, "rate", rate, 0.0)
    if pace.rate == 0:
        raise ConfigError(f"{name} arrivals need a rate: give --rate 4, or write {name}:rate=4", param="rate")
    return pace


def _override(pace: P, field: str, value: float, default: float) -> P:
    if getattr(pace, field) not in (default, value):
        raise ConfigError(
            f"--{field} {value:g} contradicts {field}={getattr(pace, field):g} in the arrivals", param=field
        )
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"--{field} {value:g}: expected a number above zero", param=field)
    return msgspec.structs.replace(pace, **{field: value})


def _unit_poisson(total: float, count: int, rng: np.random.Generator) -> Times:
    """Arrivals of a Poisson process of rate 1 before ``total``, at most ``count``."""
    times = np.cumsum(rng.exponential(1.0, count))
    return times[times < total]


def arrivals_name(pace: Pace) -> str:
    return next(name for name, kind in ARRIVALS.items() if type(pace) is kind)
