"""Workload: code completion; long prompts, short outputs."""

from __future__ import annotations

from octavo.bench.workloads.base import LengthSpec, Lengthwise


class Code(Lengthwise, frozen=True):
    """Lognormal through p50 and p90 of the Azure code trace of 2023: 1469 and 5188 tokens in, 13 and 55 out; cut at its
    largest prompt and its p99 output. sigma = ln(p90 / p50) / 1.2816.
    """

    prompt: LengthSpec = "lognormal(1469;0.985;7437)"
    output: LengthSpec = "lognormal(13;1.125;251)"
