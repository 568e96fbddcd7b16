"""What can this machine do at most, now? Memory read bandwidth and matrix rates, measured beside every group of a suite.

A shared machine changes from minute to minute, so a fraction of the limit means something only with the limit measured at the
same time. Every figure is the best of several short tries (a limit is what was reached once), the spread stands beside it.

    memory_gb_per_s      bytes of a buffer far larger than the caches / time to read it once (sum, maximum, matrix x vector), 1e9
    *_gflops             2 n^3 / time of one n x n product, 1e9; int8 counts its operations the same way
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from octavo.bench.provenance import created_now
from octavo.errors import BenchError
from octavo.hardware import detect

if TYPE_CHECKING:
    import torch

BUFFER_BYTES = 256 << 20
SMALLEST_BUFFER_BYTES = 32 << 20
SIZES = (128, 256, 512, 1024, 1536)  # of the square matrices, as far as the rate and the budget allow
MIN_TRIES, MAX_TRIES = 2, 64
BUDGET_S = 0.4  # for the tries of one figure


class Figure(msgspec.Struct, frozen=True):
    """Best, median and worst of ``num_tries``, of the kind or size that gave the best."""

    best: float
    median: float
    worst: float
    num_tries: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """None: this machine's torch has no such operation."""

    created: str
    num_threads: int
    memory_gb_per_s: Figure
    f32_gflops: Figure
    bf16_gflops: Figure | None
    int8_gflops: Figure | None
    took_s: float

    def rate(self, arithmetic: str) -> float | None:
        """Best matrix rate in operations per second of ``float32``, ``bfloat16``, ``int8``; None: not known."""
        by_name = {"float32": self.f32_gflops, "bfloat16": self.bf16_gflops, "int8": self.int8_gflops}
        figure = by_name.get(arithmetic)
        return None if figure is None else figure.best * 1e9

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.memory_gb_per_s.best * 1e9


def calibrate(num_threads: int | None = None, budget_s: float = BUDGET_S) -> Calibration:
    """Measure now; takes about ``4 * budget_s``, more where one product alone takes longer.

    ``num_threads``: those that the engine uses (None: one per usable core). Raises ``BenchError`` where there is no torch.
    """
    try:
        import torch
    except ImportError:
        raise BenchError("the calibration needs torch, which octavo itself needs; install octavo again") from None
    hardware = detect()
    started_s = time.perf_counter()
    with _threads(num_threads or hardware.num_cores) as threads, torch.inference_mode():
        buffer_bytes = max(SMALLEST_BUFFER_BYTES, min(BUFFER_BYTES, hardware.available_bytes // 8))
        memory = _memory(buffer_bytes, budget_s)
        f32 = _matrix(_products(torch.float32), budget_s)
        assert f32 is not None
        return Calibration(
            created=created_now(),
            num_threads=threads,
            memory_gb_per_s=memory,
            f32_gflops=f32,
            bf16_gflops=_matrix(_products(torch.bfloat16), budget_s),
            int8_gflops=_matrix(_products(torch.int8), budget_s),
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


@contextmanager
def _threads(count: int) -> Iterator[int]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


def _memory(num_bytes: int, budget_s: float) -> Figure:
    """Three ways to read a buffer once; the fastest of all tries counts, since none of them can be faster than the memory."""
    import torch

    buffer = torch.ones(num_bytes // 4)
    matrix = buffer[: buffer.numel() // 4096 * 4096].view(-1, 4096)
    vector = torch.ones(4096)
    ways: tuple[Callable[[], Any], ...] = (buffer.sum, buffer.amax, lambda: torch.mv(matrix, vector))
    return max((_tries(way, num_bytes / 1e9, budget_s / len(ways)) for way in ways), key=lambda one: one.best)


def _matrix(product: Callable[[int], Callable[[], Any]], budget_s: float) -> Figure | None:
    """The best rate over square products of growing size, as far as the budget allows; None if there is no such product.

    Small ones alone would not do: on a busy machine they wait longer for their threads than they compute.
    """
    found: list[Figure] = []
    end_s = time.perf_counter() + budget_s
    for place, size in enumerate(SIZES):
        work = 2 * size**3 / 1e9
        if found and time.perf_counter() + 3 * work / found[-1].best > end_s:
            break
        try:
            run = product(size)
            run()  # the first call prepares the kernel
        except (RuntimeError, NotImplementedError):
            break
        found.append(_tries(run, work, (end_s - time.perf_counter()) / (len(SIZES) - place)))
    return max(found, key=lambda one: one.best) if found else None


def _tries(run: Callable[[], Any], amount: float, budget_s: float) -> Figure:
    """Rates, ``amount`` over the time of each try, until the budget is used up."""
    rates: list[float] = []
    end_s = time.perf_counter() + budget_s
    while len(rates) < MIN_TRIES or (len(rates) < MAX_TRIES and time.perf_counter() < end_s):
        rates.append(amount / _time_s(run))
    return Figure(max(rates), float(np.median(rates)), min(rates), len(rates))


def _products(dtype: torch.dtype) -> Callable[[int], Callable[[], Any]]:
    """Size -> a product of two square matrices, the second one stored as weights are: ``[N, K]``, transposed for the product."""
    import torch

    def make(size: int) -> Callable[[], Any]:
        if dtype == torch.int8:
            left, right = (torch.randint(-127, 128, (size, size), dtype=dtype) for _ in range(2))
            # the only integer matrix product that torch offers; it accumulates in int32
            return lambda: torch._int_mm(left, right.t())
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        return lambda: torch.mm(left, right.t())

    return make


def _time_s(run: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    run()
    return time.perf_counter() - started_s
