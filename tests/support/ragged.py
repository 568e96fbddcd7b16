"""Batches for model and kernel tests: requests with shuffled block tables, built without the executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from octavo.kernels.paged_attention.batch import AttentionBatch
from octavo.models.batch import ModelBatch


@dataclass
class Row:
    """One request: its tokens, how many are in the cache, and its blocks."""

    token_ids: list[int]
    block_ids: list[int]
    num_computed: int = 0


@dataclass
class Blocks:
    """Hands out block ids in a shuffled order."""

    num_blocks: int
    block_size: int
    seed: int = 0
    free: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        order = torch.randperm(self.num_blocks, generator=torch.Generator().manual_seed(self.seed))
        self.free = order.tolist()

    def row(self, token_ids: list[int], num_tokens: int | None = None) -> Row:
        num_blocks = -(-(num_tokens or len(token_ids)) // self.block_size)
        return Row(list(token_ids), [self.free.pop() for _ in range(num_blocks)])


def attention_batch(
    query_lens: Sequence[int], context_lens: Sequence[int], tables: Sequence[Sequence[int]], block_size: int
) -> AttentionBatch:
    """Requests with query length 1 must come first."""
    width = max(-(-c // block_size) for c in context_lens)
    table = torch.zeros(len(tables), width, dtype=torch.int32)
    positions, slots = [], []
    for i, (query_len, context_len) in enumerate(zip(query_lens, context_lens, strict=True)):
        needed = -(-context_len // block_size)
        table[i, :needed] = torch.tensor(tables[i][:needed], dtype=torch.int32)
        for position in range(context_len - query_len, context_len):
            positions.append(position)
            slots.append(tables[i][position // block_size] * block_size + position % block_size)
    num_decodes = next((i for i, n in enumerate(query_lens) if n != 1), len(query_lens))
    assert all(n != 1 for n in query_lens[num_decodes:])
    return AttentionBatch(
        query_starts=torch.tensor([0, *torch.tensor(query_lens).cumsum(0).tolist()], dtype=torch.int32),
        context_lens=torch.tensor(context_lens, dtype=torch.int32),
        block_tables=table,
        slots=torch.tensor(slots),
        positions=torch.tensor(positions),
        query_lens_cpu=tuple(query_lens),
        context_lens_cpu=tuple(context_lens),
        num_decodes=num_decodes,
    )


def model_batch(rows: Sequence[Row], counts: Sequence[int], block_size: int, all_logits: bool = True) -> ModelBatch:
    """The next ``counts[i]`` tokens of each row, which must be ordered decodes first; marks them computed."""
    tokens, contexts = [], []
    for row, count in zip(rows, counts, strict=True):
        tokens += row.token_ids[row.num_computed : row.num_computed + count]
        row.num_computed += count
        contexts.append(row.num_computed)
    batch = attention_batch(counts, contexts, [row.block_ids for row in rows], block_size)
    wanted = torch.arange(len(tokens)) if all_logits else batch.query_starts[1:].long() - 1
    return ModelBatch(torch.tensor(tokens), batch, wanted)
