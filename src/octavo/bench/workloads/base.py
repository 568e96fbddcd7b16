"""Base of all workloads: a frozen struct of parameters that yields conversations (a single request, or several turns)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, TypeAlias

import msgspec

from octavo.bench.lengths import parse_lengths
from octavo.bench.prompts import Draw
from octavo.bench.types import BenchRequest
from octavo.errors import BenchError, ConfigError

LengthSpec: TypeAlias = str  # see octavo.bench.lengths


class Conversation(msgspec.Struct, frozen=True):
    """Requests that belong together, ``index`` and ``after`` counted within it; ``recorded_s`` where a trace gives a time."""

    requests: list[BenchRequest]
    recorded_s: float | None = None


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field annotated ``LengthSpec`` and named in ``LENGTHS`` is checked when the workload is made."""

    FORM: ClassVar[str] = "tokens"  # of its prompts, unless the caller chooses
    LENGTHS: ClassVar[tuple[str, ...]] = ("prompt", "output")

    def __post_init__(self) -> None:
        for name in self.LENGTHS:
            try:
                parse_lengths(getattr(self, name))
            except (ConfigError, BenchError) as error:
                raise ConfigError(f"{name}: {error.message}") from None

    def conversations(self, draw: Draw) -> Iterator[Conversation]:
        """In order, for as long as the caller asks; only a trace ends."""
        raise NotImplementedError


def one(request: BenchRequest) -> Conversation:
    return Conversation([request])


class Lengthwise(Workload, frozen=True):
    """Independent requests that differ from each other in their lengths only."""

    prompt: LengthSpec = "128"
    output: LengthSpec = "128"

    def conversations(self, draw: Draw) -> Iterator[Conversation]:
        prompt, output = parse_lengths(self.prompt), parse_lengths(self.output)
        while True:
            num_prompt, num_output = draw.prompt_tokens(prompt), draw.output_tokens(output)
            yield one(BenchRequest(index=0, max_tokens=num_output, **draw.render(draw.piece(num_prompt))))
