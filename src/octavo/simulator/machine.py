"""Step-time models of machines: a roofline with attention on top.

    t = overhead + (w^4 + (c n)^4)^(1/4) + d C + e A

w: reading the weights once; c n: the arithmetic of n tokens; the fourth-power mean is their maximum with the corner
rounded off, as measured curves are. C: context tokens that decoding rows read; A: attended pairs of prefill chunks. A
log-normal factor stands for noise. It is on purpose not the linear form that the scheduler's forecast fits.
"""

from __future__ import annotations

import difflib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from octavo.errors import ConfigError
from octavo.scheduler.step_time import StepLoad


@dataclass(frozen=True, slots=True)
class Machine:
    """Seconds per unit of each part, and the room for keys and values."""

    overhead_s: float
    weights_s: float
    token_s: float
    context_token_s: float
    pair_s: float
    kv_tokens: int
    source: str
    noise: float = 0.03  # standard deviation of the logarithm

    def seconds(self, load: StepLoad) -> float:
        """Without noise."""
        arithmetic_s = self.token_s * (load.prefill_tokens + load.decode_rows)
        body_s: float = (self.weights_s**4 + arithmetic_s**4) ** 0.25
        attention_s = self.context_token_s * load.context_tokens + self.pair_s * load.attended_pairs
        return self.overhead_s + body_s + attention_s

    def noise_factor(self, rng: random.Random) -> float:
        """With mean 1."""
        return math.exp(rng.gauss(-0.5 * self.noise**2, self.noise))

    @property
    def fastest_step_s(self) -> float:
        """Of a step with one decode row and no context: no SLO can be shorter."""
        return self.seconds(StepLoad(0, 1))


MACHINES: Mapping[str, Machine] = MappingProxyType(
    {
        "h200-8b": Machine(
            overhead_s=5e-4,
            weights_s=4.5e-3,
            token_s=2.5e-5,
            context_token_s=3.7e-8,
            pair_s=1.3e-9,
            kv_tokens=840_000,
            source="arithmetic: 8B bf16 at 74 % of 4.8 TB/s and 65 % of 989 TFLOP/s, attention at 40 %",
        ),
        "h200-70b-fp8": Machine(
            overhead_s=1e-3,
            weights_s=2.0e-2,
            token_s=1.1e-4,
            context_token_s=9.2e-8,
            pair_s=6.6e-9,
            kv_tokens=170_000,
            source="arithmetic: 70B fp8 at 74 % of 4.8 TB/s and 65 % of 1979 TFLOP/s, keys and values in bf16",
        ),
    }
)


def find_machine(name: str) -> Machine:
    """Raises ``ConfigError`` with the list of names."""
    if name not in MACHINES:
        near = difflib.get_close_matches(name, MACHINES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown machine {name!r}; {hint}known: {', '.join(MACHINES)}", param="machine")
    return MACHINES[name]
