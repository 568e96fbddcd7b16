"""Distributions of token counts, as a parameter of a workload: ``32``, ``uniform(16;64)``, ``lognormal(200;0.8;2048)``,
``histogram(16*3;64*1)`` or ``histogram(/path/lengths.csv)``.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from octavo.errors import BenchError, ConfigError

MAX_LENGTH = 10_000_000
FORMS = (
    "32, uniform(low;high), lognormal(median;sigma), lognormal(median;sigma;max), histogram(length*weight;...), "
    "histogram(file)"
)


class Lengths(Protocol):
    """One draw: a token count, at least 1."""

    def draw(self, rng: np.random.Generator) -> int: ...


class Fixed(msgspec.Struct, frozen=True):
    """Always the same."""

    value: int

    def draw(self, rng: np.random.Generator) -> int:
        return self.value


class Uniform(msgspec.Struct, frozen=True):
    """Every whole number from ``low`` to ``high``, both included, equally likely."""

    low: int
    high: int

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high, endpoint=True))


class LogNormal(msgspec.Struct, frozen=True):
    """exp(N(ln median, sigma^2)), rounded, cut at ``max``: the usual shape of prompt and response lengths."""

    median: float
    sigma: float
    max: int = MAX_LENGTH

    def draw(self, rng: np.random.Generator) -> int:
        drawn = min(rng.lognormal(math.log(self.median), self.sigma), self.max)
        return max(1, round(drawn))


class Histogram(msgspec.Struct, frozen=True):
    """``values[i]`` with probability proportional to ``weights[i]``; ``cumulative`` are the weights' normalised sums."""

    values: tuple[int, ...]
    cumulative: tuple[float, ...]

    def draw(self, rng: np.random.Generator) -> int:
        return self.values[int(np.searchsorted(self.cumulative, rng.random(), side="right"))]


def parse_lengths(text: str) -> Lengths:
    """Raises ``ConfigError`` saying which forms there are; ``BenchError`` with file and line for a malformed histogram."""
    match = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", text)
    if match is None:
        return Fixed(_length(text, text))
    kind, parts = match[1], [part.strip() for part in match[2].split(";")]
    if kind == "uniform" and len(parts) == 2:
        low, high = _length(parts[0], text), _length(parts[1], text)
        if low > high:
            raise ConfigError(f"{text!r}: the low end {low} is above the high end {high}")
        return Uniform(low, high)
    if kind == "lognormal" and len(parts) in (2, 3):
        median, sigma = _number(parts[0], text), _number(parts[1], text)
        if not (1 <= median <= MAX_LENGTH and 0 <= sigma <= 10):
            raise ConfigError(f"{text!r}: expected a median of at least 1 and a sigma from 0 to 10")
        return LogNormal(median, sigma, _length(parts[2], text) if len(parts) == 3 else MAX_LENGTH)
    if kind == "histogram" and all("*" in part for part in parts):
        pairs = [part.split("*", 1) for part in parts]
        return _histogram([(_length(length, text), _number(weight, text)) for length, weight in pairs], text)
    if kind == "histogram" and len(parts) == 1:
        return _histogram_file(Path(parts[0]).expanduser())
    raise ConfigError(f"{text!r} is not a distribution of lengths; expected {FORMS}")


def _length(part: str, text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,8}\s*", part) or not 1 <= int(part) <= MAX_LENGTH:
        raise ConfigError(f"{text!r}: {part!r} is not a token count from 1 to {MAX_LENGTH}; lengths are {FORMS}")
    return int(part)


def _number(part: str, text: str) -> float:
    try:
        number = float(part)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{text!r}: {part!r} is not a number")
    return number


def _histogram(pairs: list[tuple[int, float]], text: str) -> Histogram:
    weights = np.array([weight for _, weight in pairs])
    if (weights < 0).any() or weights.sum() <= 0:
        raise ConfigError(f"{text!r}: weights are not negative, and one is above zero")
    cumulative = np.cumsum(weights / weights.sum())
    last = int(np.flatnonzero(weights)[-1])
    cumulative[last:] = 1.0  # rounding must not leave a gap that a draw falls into
    return Histogram(tuple(length for length, _ in pairs), tuple(cumulative.tolist()))


def _histogram_file(path: Path) -> Histogram:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"histogram {str(path)!r} cannot be read: {error}") from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and re.fullmatch(r"[A-Za-z_ ,]+", line)):
            continue  # a header
        match = re.fullmatch(r"\s*([0-9]{1,8})\s*,\s*([0-9.eE+-]+)\s*", line)
        if match is None:
            raise BenchError(f"{path}:{number}: {line[:80]!r} is not a histogram line; expected length,weight")
        pairs.append((_length(match[1], f"{path}:{number}"), _number(match[2], f"{path}:{number}")))
    if not pairs:
        raise BenchError(f"{path}: no histogram line; expected length,weight")
    return _histogram(pairs, str(path))
