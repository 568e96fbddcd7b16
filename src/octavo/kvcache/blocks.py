"""Block pool of the KV cache: allocation, reference counts, order of reuse and eviction.

A free block is either *plain* (its content is worthless; reused last-in first-out, so that memory already touched is
touched again) or *cached* (its content may serve a later prefix; evicted least recently used first, and only when no
plain block is left).
"""

from __future__ import annotations

from collections import OrderedDict


class BlockPool:
    """Blocks ``0 .. num_blocks - 1``. Knows nothing of requests or tokens."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._plain = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first

    @property
    def num_free(self) -> int:
        return len(self._plain) + len(self._cached)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    def references(self, block: int) -> int:
        return self._references[block]

    def is_free(self, block: int) -> bool:
        return self._references[block] == 0

    def take(self, count: int) -> tuple[list[int], list[int]]:
        """Free blocks with one reference each, and those of them whose cached content was given up. Needs them free."""
        plain, references = self._plain, self._references
        num_plain = min(count, len(plain))
        taken = plain[: -num_plain - 1 : -1]
        del plain[len(plain) - num_plain :]
        evicted = [self._cached.popitem(last=False)[0] for _ in range(count - num_plain)]
        taken += evicted
        for block in taken:
            references[block] = 1
        return taken, evicted

    def share(self, block: int) -> None:
        """One more reference; a cached free block comes back into use."""
        if self._references[block] == 0:
            del self._cached[block]
        self._references[block] += 1

    def release(self, block: int, *, keep: bool) -> None:
        """One reference less. At zero the block is free: cached if ``keep``, else plain."""
        assert self._references[block] > 0, f"block {block} released more often than taken"
        self._references[block] -= 1
        if self._references[block] == 0:
            if keep:
                self._cached[block] = None
            else:
                self._plain.append(block)

    def drop_cached(self) -> list[int]:
        """Turn every cached free block into a plain one; returns them."""
        dropped = list(self._cached)
        self._cached.clear()
        self._plain.extend(dropped)
        return dropped

    def free_blocks(self) -> tuple[list[int], list[int]]:
        """(plain, cached), for ``check``."""
        return list(self._plain), list(self._cached)
