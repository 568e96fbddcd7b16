"""Workload: many users behind one system prompt, as a prefix cache serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from octavo.bench.lengths import parse_lengths
from octavo.bench.prompts import Draw
from octavo.bench.types import BenchRequest
from octavo.bench.workloads.base import Conversation, LengthSpec, Workload, one


class SharedPrefix(Workload, frozen=True):
    """A system prompt of ``prefix`` tokens, the same for all requests of one of ``groups`` groups, then a user's own part."""

    prefix: Annotated[int, Meta(ge=1, le=1_000_000)] = 1024
    groups: Annotated[int, Meta(ge=1, le=100_000)] = 1
    prompt: LengthSpec = "128"
    output: LengthSpec = "128"

    def conversations(self, draw: Draw) -> Iterator[Conversation]:
        prompt, output = parse_lengths(self.prompt), parse_lengths(self.output)
        prefixes = [draw.block(group, self.prefix) for group in range(self.groups)]
        while True:
            system = prefixes[int(draw.choices.integers(self.groups))]
            kept = draw.cut_prompt(self.prefix + draw.count(prompt))
            head = min(self.prefix, kept - 1)  # every request has something of its own
            rendered = draw.render(draw.piece(kept - head), system[: draw.units(head)] if head else None)
            yield one(BenchRequest(index=0, max_tokens=draw.output_tokens(output), **rendered))
