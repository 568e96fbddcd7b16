"""The KV cache manager: block tables of running requests, shared prefixes, eviction.

Pure bookkeeping: the keys and values themselves are the executor's. A block is shared only when it is full and its tokens
are computed, so nobody ever writes into a shared block and no copy is ever made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from octavo.kvcache.blocks import BlockPool
from octavo.kvcache.fit import blocks_for
from octavo.kvcache.prefix import PrefixIndex, chain, root_digest, tokens_of_blocks
from octavo.types import Request


@dataclass(slots=True)
class _Digests:
    """Of a request's full blocks, extended as tokens become known. ``chain[i]`` names the first i blocks, ``tokens[i]`` are
    those of block i."""

    chain: list[bytes]
    tokens: list[bytes] = field(default_factory=list)


class KVCache:
    """Block tables over a ``BlockPool`` with a ``PrefixIndex``.

    ``start`` gives a request its table (with the cached blocks of its prefix), ``extend`` grows it, ``commit`` offers its
    computed full blocks to others, ``release`` takes it all back; ``retire`` does so once the steps in flight are done.
    """

    def __init__(self, num_blocks: int, block_size: int, *, prefix_cache: bool = True) -> None:
        self.block_size = block_size
        self.prefix_cache = prefix_cache
        self._pool = BlockPool(num_blocks)
        self._index = PrefixIndex()
        self.tables: dict[str, list[int]] = {}  # by request id; others only read them
        self._num_indexed: dict[str, int] = {}  # leading blocks that are in the index, or duplicates of indexed ones
        self._digests: dict[str, _Digests] = {}
        self._retiring: dict[int, list[int]] = {}  # step in flight -> blocks that it may still write
        self.num_retiring_blocks = 0

    @property
    def num_blocks(self) -> int:
        return self._pool.num_blocks

    @property
    def num_free_blocks(self) -> int:
        """Blocks that an allocation can get, cached ones included."""
        return self._pool.num_free

    @property
    def num_used_blocks(self) -> int:
        return self._pool.num_used

    def block_table(self, request_id: str) -> list[int]:
        """The table itself, not a copy: it grows with ``extend``."""
        return self.tables[request_id]

    def holds(self, request_id: str) -> bool:
        """Has the request a block table?"""
        return request_id in self.tables

    def match(self, request: Request) -> list[int]:
        """The cached blocks of the request's longest known prefix. Its last token is never among them: it must be computed."""
        if not self.prefix_cache or not len(self._index):
            return []
        found: list[int] = []
        num_full = (len(request.token_ids) - 1) // self.block_size
        known = self._digests_of(request, num_full)
        for i in range(num_full):
            block = self._index.find(known.chain[i + 1], known.chain[i], known.tokens[i])
            if block is None:
                break
            found.append(block)
        return found

    def missing_blocks(self, num_tokens: int, matched: list[int]) -> int:
        """How many more free blocks a table of ``num_tokens`` that begins with these matched ones needs; zero or less: none."""
        revived = sum(self._pool.is_free(block) for block in matched)
        return blocks_for(num_tokens, self.block_size) - len(matched) - (self._pool.num_free - revived)

    def start(self, request: Request, num_tokens: int, matched: list[int]) -> None:
        """Give the request a table over ``num_tokens`` positions. Needs ``missing_blocks`` <= 0."""
        assert request.request_id not in self.tables, f"{request.request_id} already has a block table"
        for block in matched:
            self._pool.share(block)
        self.tables[request.request_id] = list(matched)
        self._num_indexed[request.request_id] = len(matched)
        grown = self.extend(request.request_id, num_tokens)
        assert grown, "start without the blocks for it"

    def extend(self, request_id: str, num_tokens: int) -> bool:
        """Grow the table to cover ``num_tokens`` positions; False (and nothing changes) if the blocks are not there."""
        blocks = self.tables[request_id]
        missing = blocks_for(num_tokens, self.block_size) - len(blocks)
        if missing <= 0:
            return True
        if missing > self._pool.num_free:
            return False
        taken, evicted = self._pool.take(missing)
        for block in evicted:
            self._index.forget(block)
        blocks += taken
        return True

    def commit(self, request: Request) -> None:
        """The first ``num_computed_tokens`` are in the cache now: offer the full blocks among them to later requests."""
        if not self.prefix_cache:
            return
        table, num_indexed = self.tables[request.request_id], self._num_indexed[request.request_id]
        num_full = request.num_computed_tokens // self.block_size
        if num_full <= num_indexed:
            return
        known = self._digests_of(request, num_full)
        for i in range(num_indexed, num_full):
            self._index.add(known.chain[i + 1], known.chain[i], known.tokens[i], table[i])
        self._num_indexed[request.request_id] = num_full

    def release(self, request_id: str) -> None:
        """Take back whatever the request holds (nothing, if it never started)."""
        self._free(self._take_table(request_id))

    def retire(self, request_id: str, step: int) -> None:
        """Take back the request's table, but free its blocks only with ``free_retired(step)``: that step may write to them."""
        table = self._take_table(request_id)
        self._retiring.setdefault(step, []).extend(table)
        self.num_retiring_blocks += len(table)

    def free_retired(self, step: int) -> None:
        """``step`` is done, and all before it."""
        if step in self._retiring:
            blocks = self._retiring.pop(step)
            self.num_retiring_blocks -= len(blocks)
            self._free(blocks)

    def _take_table(self, request_id: str) -> list[int]:
        self._digests.pop(request_id, None)
        self._num_indexed.pop(request_id, None)
        return self.tables.pop(request_id, [])

    def _free(self, blocks: list[int]) -> None:
        """Last block first: tails are evicted first."""
        for block in reversed(blocks):
            self._pool.release(block, keep=self._index.holds(block))

    def drop_cached(self) -> int:
        """Forget every prefix that no running request holds; returns how many blocks that freed."""
        dropped = self._pool.drop_cached()
        for block in dropped:
            self._index.forget(block)
        return len(dropped)

    def _digests_of(self, request: Request, num_full: int) -> _Digests:
        """Of at least the first ``num_full`` blocks. Kept per request, so each block is hashed once."""
        known = self._digests.get(request.request_id)
        if known is None:
            known = self._digests[request.request_id] = _Digests([root_digest(request.tenant)])
        if (num_known := len(known.tokens)) < num_full:
            new = tokens_of_blocks(request.token_ids, self.block_size, num_known, num_full)
            known.tokens += new
            for tokens in new:
                known.chain.append(chain(known.chain[-1], tokens))
        return known

    def check(self) -> dict[str, int]:
        """The arithmetic that must hold, or AssertionError with the numbers that do not add up."""
        plain, cached = self._pool.free_blocks()
        held: Counter[int] = Counter()
        for request_id, table in self.tables.items():
            assert len(set(table)) == len(table), f"{request_id} holds a block twice: {table}"
            assert self._num_indexed[request_id] <= len(table), f"{request_id} indexed more blocks than it has"
            held.update(table)
        for blocks in self._retiring.values():
            held.update(blocks)
        retiring = sum(map(len, self._retiring.values()))
        assert self.num_retiring_blocks == retiring, f"{self.num_retiring_blocks} retiring blocks, counted {retiring}"
        numbers = {"total": self.num_blocks, "held": len(held), "plain": len(plain), "cached": len(cached)}
        assert numbers["held"] + numbers["plain"] + numbers["cached"] == numbers["total"], (
            f"blocks lost or doubled: {numbers}"
        )
        assert set(held) | set(plain) | set(cached) == set(range(self.num_blocks)), f"block sets overlap: {numbers}"
        for block in range(self.num_blocks):
            assert self._pool.references(block) == held[block], (
                f"block {block}: {self._pool.references(block)} references, {held[block]} holders"
            )
        indexed = set(self._index.blocks())
        assert set(cached) <= indexed, f"cached blocks without an index entry: {set(cached) - indexed}"
        assert not indexed & set(plain), f"plain free blocks in the index: {indexed & set(plain)}"
        return numbers
