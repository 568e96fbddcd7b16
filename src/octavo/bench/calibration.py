"""Calibration of this machine: memory read bandwidth and matmul FLOP/s, measured beside every group of a suite.

A shared machine changes from minute to minute, so a fraction of the limit means something only with the limit measured at the
same time. Every figure is the best of several ways and of many short windows of all threads together (``throughput``; a limit
is what was reached once), the spread stands beside it. All ways are those of libraries, none is a kernel of ours: what is
judged is not its own yardstick.

    memory_gb_per_s      bytes of a buffer / time to read it once (sum, maximum, product with a vector), 1e9. Buffers: four
                         times the last-level cache and larger, and one as large as the weights that a step reads
    *_gflops             2 n^3 / time of one n x n product, 1e9; int8 counts its operations the same way

The rate that limits an engine is the best of its own arithmetic and of all those that hold the same numbers: products of bf16
or int8 values can be computed exactly as well in float32, and on a machine without such instructions libraries are slower there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from octavo.bench.provenance import created_now
from octavo.bench.throughput import MIN_PIECES, Figure, Piece, throughput
from octavo.extras import require
from octavo.hardware import detect

if TYPE_CHECKING:
    import torch

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
BEYOND_CACHE = 4  # a buffer of that many last-level caches is read from memory but for a small part
SMALLEST_BUFFER_BYTES, LARGEST_BUFFER_BYTES = 32 << 20, 2 << 30
LIKELY_CACHE_BYTES = 32 << 20  # where the system does not tell
SIZES = (256, 512, 1024)  # of the square matrices, as far as the rate and the budget allow
CHUNK = 1 << 20  # elements that are read at once: 4 MiB
ROW = 4096  # elements
BUDGET_S = 0.4  # for the tries of one figure
HOLDERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {  # arithmetic -> all that represent its operands exactly
        "float32": ("float32",),
        "bfloat16": ("bfloat16", "float32"),
        "float16": ("float32",),
        "int8": ("int8", "bfloat16", "float32"),
    }
)


@dataclass(frozen=True, slots=True)
class Way:
    """``make(size)`` prepares a product of two square matrices and returns what computes it."""

    name: str
    make: Callable[[int], Piece]


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """None: no library here has such an operation."""

    created: str
    num_threads: int
    memory_gb_per_s: Figure
    f32_gflops: Figure
    bf16_gflops: Figure | None
    int8_gflops: Figure | None
    took_s: float

    def of(self, arithmetic: str) -> Figure | None:
        """The figure of one arithmetic; None: not measured."""
        measured = {"float32": self.f32_gflops, "bfloat16": self.bf16_gflops, "int8": self.int8_gflops}
        return measured.get(arithmetic)

    def fastest(self, arithmetic: str) -> tuple[str, Figure] | None:
        """The arithmetic that computes products of ``arithmetic``'s numbers fastest here, and its figure; None: not known."""
        known = [(name, figure) for name in HOLDERS.get(arithmetic, ()) if (figure := self.of(name)) is not None]
        return max(known, key=lambda one: one[1].best) if known else None

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.memory_gb_per_s.best * 1e9


def calibrate(num_threads: int | None = None, budget_s: float = BUDGET_S, weight_bytes: int = 0) -> Calibration:
    """Measure now; takes about ``5 * budget_s``, more where one product alone takes longer.

    ``num_threads``: those that the engine uses (None: one per usable core). ``weight_bytes``: read by a step of the model that
    is measured; those of a small model stay partly in the cache, so this much is read as well. Raises ``MissingPackageError``
    where there is no torch.
    """
    require("torch", "the calibration of the machine needs")
    import torch

    hardware = detect()
    started_s = time.perf_counter()
    with _one_thread_each():
        threads = num_threads or hardware.num_cores
        memory = _memory(threads, buffer_sizes(cache_bytes(), hardware.available_bytes, weight_bytes), 2 * budget_s)
        f32 = _matrix(threads, [_float_way(torch.float32)], budget_s)
        assert f32 is not None
        return Calibration(
            created=created_now(),
            num_threads=threads,
            memory_gb_per_s=memory,
            f32_gflops=f32,
            bf16_gflops=_matrix(threads, [_float_way(torch.bfloat16)], budget_s),
            int8_gflops=_matrix(threads, _int8_ways(), budget_s),
            took_s=time.perf_counter() - started_s,
        )


def faster(first: Calibration, second: Calibration) -> Calibration:
    """The higher figure of each: the limit over the time between two calibrations."""

    def best(one: Figure | None, other: Figure | None) -> Figure | None:
        found = [figure for figure in (one, other) if figure is not None]
        return max(found, key=lambda figure: figure.best) if found else None

    memory, f32 = best(first.memory_gb_per_s, second.memory_gb_per_s), best(first.f32_gflops, second.f32_gflops)
    assert memory is not None and f32 is not None
    return msgspec.structs.replace(
        first,
        memory_gb_per_s=memory,
        f32_gflops=f32,
        bf16_gflops=best(first.bf16_gflops, second.bf16_gflops),
        int8_gflops=best(first.int8_gflops, second.int8_gflops),
        took_s=first.took_s + second.took_s,
    )


def cache_bytes(caches: Path = CACHES) -> int:
    """Size of the largest cache of the first core, by sysfs(5)."""
    sizes = [path.read_text().strip() for path in caches.glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    known = [int(size[:-1]) * units[size[-1]] for size in sizes if size[:-1].isdigit() and size[-1] in units]
    return max(known, default=LIKELY_CACHE_BYTES)


def buffer_sizes(cache: int, available: int, weights: int = 0) -> tuple[int, ...]:
    """What is read, in bytes, smallest first; an eighth of the available memory at most, but never less than 32 MiB."""
    highest = max(SMALLEST_BUFFER_BYTES, min(LARGEST_BUFFER_BYTES, available // 8))
    sizes = {min(highest, max(SMALLEST_BUFFER_BYTES, BEYOND_CACHE * cache * times)) for times in (1, 2)}
    return tuple(sorted(sizes | ({min(highest, weights)} if weights else set())))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """No operation spreads over cores: the threads of ``throughput`` do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _memory(num_threads: int, sizes: Sequence[int], budget_s: float) -> Figure:
    """Each thread reads its share of a buffer from end to end, again and again. None of the ways is faster than the memory."""
    import torch

    lengths = sorted({max(size // 4, num_threads * ROW) for size in sizes})
    whole, vector = torch.ones(lengths[-1]), torch.ones(ROW)
    ways: dict[str, Callable[[torch.Tensor], object]] = {
        "sum": torch.sum,
        "maximum": torch.amax,
        "matrix x vector": lambda chunk: torch.mv(chunk.view(-1, ROW), vector),
    }
    found = []
    for length in lengths:
        chunk = min(CHUNK, length // num_threads) // ROW * ROW
        shares = torch.split(whole[:length], length // num_threads)[:num_threads]
        for name, read in ways.items():
            # what is left over at the end of a share is not read: all pieces are the same
            readers = [
                partial(_read_next, read, cycle(torch.split(share, chunk)[: len(share) // chunk])) for share in shares
            ]
            share_s = budget_s / len(lengths) / len(ways)
            found.append(throughput(readers, chunk * 4 / 1e9, share_s, f"{name}, {length / 2**18:.0f} MiB"))
    return max(found, key=lambda one: one.best)


def _read_next(read: Callable[[torch.Tensor], object], chunks: Iterator[torch.Tensor]) -> None:
    read(next(chunks))


def _matrix(num_threads: int, ways: Sequence[Way], budget_s: float) -> Figure | None:
    """The best rate over the ways and over square products of growing size, as far as the budget allows; None: no way works."""
    found: list[Figure] = []
    for size in SIZES:
        work = 2 * size**3 / 1e9
        for way in ways:
            known = [one.best for one in found if one.way.startswith(way.name)]
            if known and (MIN_PIECES + 1) * work * num_threads / max(known) > budget_s:
                continue
            with suppress(
                RuntimeError, NotImplementedError, AttributeError
            ):  # not on this machine, not in this version
                runs = [way.make(size) for _ in range(num_threads)]
                share_s = budget_s / len(SIZES) / len(ways)
                found.append(throughput(runs, work, share_s, f"{way.name}, n = {size}"))
    return max(found, key=lambda one: one.best) if found else None


def _float_way(dtype: torch.dtype) -> Way:
    """The second matrix is stored as weights are: ``[N, K]``, transposed for the product."""
    import torch

    def make(size: int) -> Piece:
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        return partial(torch.mm, left, right.t())

    return Way(f"torch.mm, {str(dtype).removeprefix('torch.')}", make)


def _int8_ways() -> list[Way]:
    """Products of 8-bit integers, accumulated in 32 bits; the first one scales its result to float32, as a layer would.

    Torch's older ``quantized.linear`` is as fast, but deprecated.
    """
    import torch

    def drawn(size: int, low: int, high: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randint(low, high, (size, size), dtype=dtype)

    def onednn(size: int) -> Piece:
        weight = torch.ops.onednn.qlinear_prepack(drawn(size, -127, 128, torch.int8).t(), [size, size])
        scales, zeros = torch.full((size,), 0.01), torch.zeros(size, dtype=torch.int64)
        left = drawn(size, 0, 256, torch.uint8)
        result: tuple[Any, ...] = (
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )  # no bias, not quantised, nothing after it
        return partial(torch.ops.onednn.qlinear_pointwise, left, 0.01, 128, weight, scales, zeros, *result)

    def plain(size: int) -> Piece:
        left, right = (drawn(size, -127, 128, torch.int8) for _ in range(2))
        return partial(torch._int_mm, left, right.t())

    return [Way("oneDNN qlinear", onednn), Way("torch._int_mm", plain)]
