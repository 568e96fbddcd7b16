"""Prefix index: chained block hashes to blocks, every hit verified against the tokens.

    digest_0 = SHA-256(salt),   digest_i = SHA-256(digest_{i-1} || tokens of block i)

A digest names a whole prefix, so equal digests mean equal prefixes. Every hit is still verified (parent digest and the
block's tokens are compared), so a collision costs a miss, never somebody else's keys and values. The salt is the tenant:
one tenant's prefixes neither serve nor, by their timing, betray themselves to another.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import NamedTuple


def root_digest(salt: str) -> bytes:
    return hashlib.sha256(b"octavo prefix\0" + salt.encode("utf-8", "surrogatepass")).digest()


def tokens_of_blocks(token_ids: list[int], block_size: int, start: int, stop: int) -> list[bytes]:
    """The tokens of the blocks ``start .. stop - 1`` as bytes (8 per token: no id can be cut short)."""
    raw, size = array("q", token_ids[start * block_size : stop * block_size]).tobytes(), 8 * block_size
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def chain(parent: bytes, tokens: bytes) -> bytes:
    return hashlib.sha256(parent + tokens).digest()


class _Entry(NamedTuple):
    block: int
    parent: bytes
    tokens: bytes


class PrefixIndex:
    """Digest of a prefix -> the block that holds its last tokens."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, _Entry] = {}
        self._by_block: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, digest: bytes, parent: bytes, tokens: bytes) -> int | None:
        """The block, if the digest is known and stands for exactly this parent and these tokens."""
        entry = self._by_digest.get(digest)
        if entry is None or entry.parent != parent or entry.tokens != tokens:
            return None
        return entry.block

    def add(self, digest: bytes, parent: bytes, tokens: bytes, block: int) -> bool:
        """False (and nothing happens) if another block already stands for this digest."""
        if digest in self._by_digest:
            return False
        self._by_digest[digest] = _Entry(block, parent, tokens)
        self._by_block[block] = digest
        return True

    def holds(self, block: int) -> bool:
        return block in self._by_block

    def forget(self, block: int) -> None:
        del self._by_digest[self._by_block.pop(block)]

    def blocks(self) -> dict[int, bytes]:
        """Block -> digest, for ``check``."""
        assert {entry.block: digest for digest, entry in self._by_digest.items()} == self._by_block
        return dict(self._by_block)
