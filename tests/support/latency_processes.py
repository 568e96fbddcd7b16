"""Latency series whose true mean and quantiles are known exactly: what intervals are held to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

SIGMA = 0.7  # of the logarithm: p99/p50 is 5.1


@dataclass(frozen=True)
class Process:
    """``draw(rng, n)`` gives n consecutive latencies in the steady state."""

    name: str
    draw: Callable[[np.random.Generator, int], NDArray[np.float64]]
    mean: float
    quantile: Callable[[float], float]


def lognormal(correlation: float = 0.0) -> Process:
    """exp(sigma z), z a Gaussian AR(1) with that correlation between neighbours."""

    def draw(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        noise = rng.standard_normal(size)
        noise[1:] *= math.sqrt(1 - correlation**2)
        return np.exp(SIGMA * signal.lfilter([1.0], [1.0, -correlation], noise))

    name = f"lognormal, AR(1) {correlation}" if correlation else "lognormal, independent"
    return Process(name, draw, math.exp(SIGMA**2 / 2), lambda p: math.exp(SIGMA * stats.norm.ppf(p)))


def queue(load: float) -> Process:
    """Waiting + service in M/M/1 (Lindley's recursion, started in its stationary law): exponential with mean 1/(1 - load)."""

    def draw(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
        service = rng.exponential(1.0, size)
        steps = service - rng.exponential(1 / load, size)
        walk = np.concatenate(([0.0], np.cumsum(steps[:-1])))
        first = rng.exponential(1 / (1 - load)) if rng.random() < load else 0.0
        return np.maximum(walk + first, walk - np.minimum.accumulate(walk)) + service

    return Process(f"M/M/1, load {load}", draw, 1 / (1 - load), lambda p: -math.log(1 - p) / (1 - load))
