"""Step-time model: linear in what a step computes, fitted online from measured steps.

    t = a + b P + c D + d C + e A

P prefill tokens, D decode rows, C context tokens that those rows read, A attended (query, key) pairs of the prefill
chunks. Recursive least squares with forgetting (Plackett 1950; Ljung, "System Identification", 11.2), made safe for a
server: a step far off the forecast (a compilation, a page fault) counts no more than one at the edge of the plausible
(Huber 1964), where the plausible widens with what the step has that was never seen before; what is not a positive finite
time is not counted at all; and no coefficient is used below zero: more work never takes less time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

from octavo.types import Plan

WARM_UP = 3  # first steps, not learned from: they allocate and compile
MIN_OBSERVATIONS = 8  # learned from; before that a forecast is a guess
FORGETTING = 0.999  # a step's weight halves after 700 steps
OUTLIER = 4.0  # mean absolute errors; beyond, a step is counted as this far off
MAX_VARIANCE = 1e6  # of a coefficient nothing is learned about: keeps forgetting from blowing up
SCALES = (1.0, 1e-2, 1e-2, 1e-5, 1e-6)  # bring every feature near 1
ERROR_MEMORY = 0.02  # of the moving mean error


class StepLoad(NamedTuple):
    """What one step computes, as far as its duration depends on it."""

    prefill_tokens: int = 0
    decode_rows: int = 0
    context_tokens: int = 0  # already computed tokens of the decoding requests
    attended_pairs: float = 0.0  # sum over prefill chunks of tokens x (tokens before the chunk + half the chunk)

    def with_drafts(self, num_tokens: int) -> StepLoad:
        """With a row for each drafted token."""
        return self._replace(decode_rows=self.decode_rows + num_tokens) if num_tokens else self


def load_of(plan: Plan) -> StepLoad:
    """What a plan computes. A chunk of one token costs what a decode costs, and counts as one."""
    prefill_tokens, context_tokens, num_rows, pairs = 0, 0, 0, 0.0
    for _, start, num_tokens, _, _, _, _ in plan.requests:
        if num_tokens == 1:
            num_rows += 1
            context_tokens += start
        else:
            prefill_tokens += num_tokens
            pairs += num_tokens * (start + 0.5 * num_tokens)
    return StepLoad(prefill_tokens, num_rows, context_tokens, pairs)


class StepTimeForecast:
    """Fitted by ``observe``; ``seconds`` and ``prefill_room`` are the two questions that policies ask."""

    def __init__(self) -> None:
        size = len(SCALES)
        self.num_observed = 0
        self._num_skipped = 0
        self.error = 0.0  # moving mean of |forecast - measured| / measured
        self._weights = [0.0] * size
        self._covariance = _unsure()
        self._spread_s = 0.0  # moving mean of |forecast - measured|
        self.coefficients: tuple[float, ...] = (
            0.0,
        ) * size  # seconds per step, prefill token, row, context token, pair; none below zero

    @property
    def ready(self) -> bool:
        """Has it seen enough to be asked?"""
        return self.num_observed >= MIN_OBSERVATIONS

    def seconds(self, load: StepLoad) -> float:
        """Forecast of a step's duration."""
        fixed, prefill, row, context, pair = self.coefficients
        return (
            fixed
            + prefill * load.prefill_tokens
            + row * load.decode_rows
            + context * load.context_tokens
            + pair * load.attended_pairs
        )

    def prefill_room(self, seconds: float, load: StepLoad, start: int = 0) -> int:
        """How many prefill tokens can join ``load`` so that the step is forecast to take at most ``seconds``.

        ``start``: computed tokens of the request they belong to. n tokens cost b n + e n (start + n / 2); this is the
        positive root of that quadratic. 0 if the step takes that long without them.
        """
        left = seconds - self.seconds(load)
        if left <= 0.0:
            return 0
        _, prefill, _, _, pair = self.coefficients
        slope = prefill + pair * start
        if pair <= 0.0:
            return int(min(left / slope, 2**31)) if slope > 0.0 else 2**31
        return int(min((math.sqrt(slope * slope + 2.0 * pair * left) - slope) / pair, 2**31))

    def observe(self, load: StepLoad, seconds: float) -> None:
        """Learn from a measured step."""
        if not (0.0 < seconds < math.inf) or not (load.prefill_tokens or load.decode_rows):
            return
        if self._num_skipped < WARM_UP:
            self._num_skipped += 1
            return
        x = tuple(map(mul, SCALES, (1.0, *load)))
        px = [_dot(row, x) for row in self._covariance]
        leverage = max(0.0, _dot(x, px))  # how unlike all that was seen before, in variances
        residual = seconds - _dot(self._weights, x)
        if self.ready:
            off = abs(self.seconds(load) - seconds)
            self.error += ERROR_MEMORY * (off / seconds - self.error)
            unsure = math.sqrt(1.0 + leverage)
            limit = OUTLIER * max(self._spread_s, 1e-9) * unsure
            residual = min(max(residual, -limit), limit)
            self._spread_s += ERROR_MEMORY * (min(off / unsure, 2 * limit) - self._spread_s)
        else:
            self._spread_s = max(self._spread_s, 0.25 * seconds)
        self._learn(px, residual / (FORGETTING + leverage), 1.0 / (FORGETTING + leverage))
        self.num_observed += 1

    def _learn(self, px: list[float], step: float, scale: float) -> None:
        """w += k r,  P = (P - k x'P) / f,  with gain k = P x / (f + x'P x); ``step`` = r scale, ``scale`` = 1 / (f + x'P x)."""
        rows, (va, vb, vc, vd, ve) = self._covariance, px
        forget = 1.0 if max(row[i] for i, row in enumerate(rows)) > MAX_VARIANCE else FORGETTING
        for i, ((a, b, c, d, e), v) in enumerate(zip(rows, px, strict=True)):
            rows[i] = (  # v * va first: the same product as in the mirrored place
                (a - v * va * scale) / forget,
                (b - v * vb * scale) / forget,
                (c - v * vc * scale) / forget,
                (d - v * vd * scale) / forget,
                (e - v * ve * scale) / forget,
            )
            self._weights[i] += v * step
        if min(row[i] for i, row in enumerate(rows)) <= 0.0:  # rounding has eaten it up: be unsure again, keep the fit
            self._covariance = _unsure()
        a, b, c, d, e = self._weights
        self.coefficients = tuple(map(mul, SCALES, (max(0.0, a), max(0.0, b), max(0.0, c), max(0.0, d), max(0.0, e))))


def _unsure() -> list[tuple[float, ...]]:
    """The covariance before anything is known. It must stay symmetric to the last bit: forgetting divides, so a difference
    between mirrored places would double every 700 steps, until a variance is below zero."""
    return [tuple(1e3 if i == j else 0.0 for j in range(len(SCALES))) for i in range(len(SCALES))]


def _dot(p: Sequence[float], q: Sequence[float]) -> float:
    """Of five each, written out: a step is observed in less time that way than a generator takes to begin."""
    (a, b, c, d, e), (f, g, h, i, j) = p, q
    return a * f + b * g + c * h + d * i + e * j
