"""Workload: a recorded trace replayed: its times, its lengths and, where block hashes were recorded, its shared prefixes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from msgspec import Meta

from octavo.bench.prompts import Draw
from octavo.bench.traces import BLOCK_TOKENS, TraceRow, read_trace
from octavo.bench.types import BenchRequest
from octavo.bench.workloads.base import Conversation, Workload


class Trace(Workload, frozen=True):
    """azure-code, azure-conv, mooncake-conv, mooncake-synthetic, sharegpt (samples in the package), or a path to a CSV or JSONL
    file.

    ``start`` skips rows. ``scale`` multiplies all lengths; ``block`` says how many tokens stand for a recorded block of 512
    (0: 512 x scale) and scales prompts by block / 512. Rows with the same block hashes get the same tokens there.
    """

    POSITIONAL: ClassVar[str] = "source"
    LENGTHS: ClassVar[tuple[str, ...]] = ()

    source: str = "azure-conv"
    start: Annotated[int, Meta(ge=0)] = 0
    scale: Annotated[float, Meta(gt=0, le=100)] = 1.0
    block: Annotated[int, Meta(ge=0, le=BLOCK_TOKENS * 100)] = 0

    @property
    def block_tokens(self) -> int:
        return self.block or max(1, round(BLOCK_TOKENS * self.scale))

    def conversations(self, draw: Draw) -> Iterator[Conversation]:
        if self.scale != 1 or self.block:
            draw.tally.remarks.append(
                f"trace lengths scaled: prompts by {self.block_tokens}/{BLOCK_TOKENS}, outputs by {self.scale:g}"
            )
        first_s: float | None = None
        for number, row in enumerate(read_trace(self.source)):
            if number < self.start:
                continue
            first_s = row.arrival_s if first_s is None else first_s
            num_output = draw.cut_output(max(1, round(row.num_output_tokens * self.scale)))
            request = BenchRequest(index=0, max_tokens=num_output, **draw.render(self._prompt(draw, row)))
            yield Conversation([request], row.arrival_s - first_s)

    def _prompt(self, draw: Draw, row: TraceRow) -> list[int]:
        full, rest = divmod(row.num_prompt_tokens, BLOCK_TOKENS)
        num_prompt = full * self.block_tokens + round(rest * self.block_tokens / BLOCK_TOKENS)
        num_prompt = draw.cut_prompt(max(1, num_prompt))
        if not row.hash_ids:
            return draw.piece(num_prompt)
        piece: list[int] = []
        for place, hash_id in enumerate(row.hash_ids):
            if (missing := num_prompt - place * self.block_tokens) <= 0:
                break
            block = draw.block(hash_id, self.block_tokens)
            piece += block if missing >= self.block_tokens else block[: draw.units(missing)]
        return piece
