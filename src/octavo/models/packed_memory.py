"""Huge-page memory of a packed model, allocated or mapped from a file, and its checksum.

Weights are streamed through once a step. In pages of 4 KiB the processor spends a fifth to a quarter of that on address
translation; in pages of 2 MiB next to nothing. Anonymous memory gets them on request. A mapped file has them where its file
system keeps large folios in the page cache (Linux 6.16 on ext4, some years earlier on XFS); elsewhere a copy is worth its time.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from octavo.kernels.native.matrix import checksum_of
from octavo.models.dequantize import MAX_THREADS, usable_cores

T = TypeVar("T")
LARGE_PAGE = 2 << 20
CHUNK_BYTES = 2 * LARGE_PAGE


def allocate(num_bytes: int) -> np.ndarray:
    """Zeros ``uint8 [num_bytes]``, page-aligned, in large pages if that is possible."""
    memory = mmap.mmap(-1, max(1, num_bytes))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)[:num_bytes]


def checksum(memory: np.ndarray) -> int:
    """64 bits of a ``uint8`` array: the checksum of its chunks' checksums. Reads every byte."""
    sums = _each_chunk(memory.nbytes, lambda start, end: checksum_of(memory[start:end]))
    return checksum_of(np.array(sums, np.uint64).view(np.uint8))


def in_large_pages(memory: np.ndarray) -> np.ndarray:
    """``memory``, whose pages have been touched; or a copy in large pages if it has small ones."""
    if memory.nbytes < CHUNK_BYTES or not has_small_pages(memory.ctypes.data):
        return memory
    copy = allocate(memory.nbytes)
    _each_chunk(memory.nbytes, lambda start, end: np.copyto(copy[start:end], memory[start:end]))
    return copy


def has_small_pages(address: int) -> bool:
    """Most of the mapping around ``address`` is in small pages, though this system could give large ones."""
    try:
        offered = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
        with Path("/proc/self/smaps").open(encoding="utf-8", errors="replace") as smaps:
            facts = _mapping_facts(smaps, address)
    except OSError:
        return False
    large = facts.get("FilePmdMapped", 0) + facts.get("AnonHugePages", 0)
    return "[never]" not in offered and 2 * large < facts.get("Rss", 0)


def _mapping_facts(smaps: Iterable[str], address: int) -> dict[str, int]:
    """The sizes in KiB that Linux tells of the mapping around ``address``; see proc_pid_smaps(5)."""
    inside = False
    facts: dict[str, int] = {}
    for line in smaps:
        if line[0].isupper():  # a fact, not the addresses that begin a mapping
            name, _, value = line.partition(":")
            if inside and value.endswith("kB\n"):
                facts[name] = int(value.split()[0])
        elif inside:
            break
        else:
            start, _, end = line.partition(" ")[0].partition("-")
            inside = int(start, 16) <= address < int(end, 16)
    return facts


def _each_chunk(num_bytes: int, work: Callable[[int, int], T]) -> list[T]:
    """``work(start, end)`` for every chunk, on a few threads, in order."""
    starts = range(0, num_bytes, CHUNK_BYTES)
    with ThreadPoolExecutor(max(1, min(usable_cores(), MAX_THREADS))) as pool:
        return list(pool.map(lambda start: work(start, min(start + CHUNK_BYTES, num_bytes)), starts))
