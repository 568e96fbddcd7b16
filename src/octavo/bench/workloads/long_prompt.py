"""Workload: documents to summarise; prefill dominates."""

from __future__ import annotations

from octavo.bench.workloads.base import LengthSpec, Lengthwise


class LongPrompt(Lengthwise, frozen=True):
    """Long prompts, short responses: what stalls the decoding of others when prefill is not chunked."""

    prompt: LengthSpec = "uniform(2048;6144)"
    output: LengthSpec = "64"
