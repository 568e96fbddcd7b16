"""Workload: single questions to a chat model, with lengths like those of ShareGPT."""

from __future__ import annotations

from typing import ClassVar

from octavo.bench.workloads.base import LengthSpec, Lengthwise


class Chat(Lengthwise, frozen=True):
    """One question, one response. Lognormal lengths fitted to the first turns of ShareGPT (v3, 2,759 of them, 4.5 characters a
    token; ln has mean ln 45 and sigma 1.70 for questions, ln 176 and 1.22 for responses), cut at 2048 and 1024.
    """

    FORM: ClassVar[str] = "messages"

    prompt: LengthSpec = "lognormal(45;1.70;2048)"
    output: LengthSpec = "lognormal(176;1.22;1024)"
