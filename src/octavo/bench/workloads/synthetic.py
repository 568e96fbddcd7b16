"""Workload: any lengths: ``synthetic:prompt=32,output=20``, or any distribution of ``octavo.bench.lengths``."""

from __future__ import annotations

from octavo.bench.workloads.base import Lengthwise


class Synthetic(Lengthwise, frozen=True):
    """Random tokens with lengths that are fixed or drawn: 32, uniform(16;64), lognormal(200;0.8), histogram(16*3;64*1)."""
