"""Benchmark of the native linear kernels: products/s and bytes/s against the limits of this CPU and torch's float32 product.

    python benchmarks/native_linear.py [--rows 1,8,64] [--threads 1,2]

For each shape and number of rows: products a second (an addition and a multiplication count as two), bytes of weights a second,
the share of what this CPU could do with the instructions at hand, and torch's float32 product of the same shape (of one thread,
times the threads) in the same interleaved run. Weights are `cold` (more copies than COLD_BYTES take turns, as the layers of a
model do) or `warm`. Times are CPU times of the threads that compute, so a shared machine disturbs them little; the best of
several rounds counts.
"""

from __future__ import annotations

import argparse
import ctypes as c
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from octavo.kernels.native import library, structs
from octavo.kernels.native.structs import GROUP, TILE, Format, ScaleType

COLD_BYTES = 96 << 20
COLD_ROWS = 8
ROUND_S = 0.01
PRODUCTS_A_CYCLE = {
    Format.U4: 64,
    Format.U8: 51,
    Format.Q8: 32,
    Format.F32: 16,
    Format.BF16: 16,
}  # AVX2; how: micro_kernel_avx2.hpp
CASES = (
    (576, 960, Format.U4),
    (576, 576, Format.U4),
    (576, 3072, Format.U4),
    (1536, 576, Format.U4),
    (576, 3072, Format.U8),
    (576, 3072, Format.Q8),
    (576, 49152, Format.Q8),
    (576, 960, Format.F32),
)
# Sixteen additions that wait for each other, one cycle each, so that the loop's own branch does not count.
CLOCK = (
    'void chain(long n) { long x = 1; for (; n > 0; n -= 16) __asm__ volatile("'
    + "add $1, %0;" * 16
    + '" : "+r"(x)); }'
)


class Packed(NamedTuple):
    """A struct and the memory that it borrows."""

    struct: Any
    parts: list[np.ndarray]


class Work(NamedTuple):
    """Products that take turns."""

    matrices: list[structs.Matrix]
    rows: structs.Activations
    num_rows: int


def clock_ghz() -> float:
    """By a chain of additions that wait for each other."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "clock.c", Path(folder) / "clock.so"
        source.write_text(CLOCK)
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(source), "-o", str(made)], check=True)
        chain, count = c.CDLL(str(made)).chain, 2_000_000
        best = min(_timed(lambda: chain(c.c_long(count))) for _ in range(100))
    return count / best / 1e9


def _timed(function: Any) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start


def room(array: np.ndarray) -> np.ndarray:
    """The array's bytes on a cache line."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    aligned = raw[-raw.ctypes.data % 64 :][: array.nbytes]
    aligned[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return aligned


def make_matrices(k: int, n: int, kind: Format) -> list[Packed]:
    """As many different ones as no cache holds."""
    rng = np.random.default_rng(1)
    if kind == Format.F32:
        parts = [room(rng.standard_normal((n, k), np.float32))]
    else:
        elements = rng.integers(0, 64 if kind == Format.U8 else 256, n * k // (2 if kind == Format.U4 else 1), np.uint8)
        scales = rng.standard_normal(n * k // GROUP, np.float32).astype(np.float16)
        parts = [room(part) for part in [elements, scales, *([] if kind == Format.Q8 else [scales])]]
    made = []
    for _ in range(-(-COLD_BYTES // sum(part.nbytes for part in parts))):
        copies = [room(part) for part in parts]
        pointers = [part.ctypes.data for part in copies] + [None] * (4 - len(copies))
        made.append(Packed(structs.Matrix(kind, ScaleType.F16, n, k, n // TILE, k // GROUP, 1, 0, *pointers), copies))
    return made


def make_rows(k: int, num_rows: int, table: Any) -> Packed:
    x = np.random.default_rng(2).standard_normal((num_rows, k), np.float32)
    sizes = [GROUP, 4, 4, 8, 4]  # bytes a group: q, scales, sums, sums_of_16, offsets
    parts = [*(room(np.zeros((num_rows, k // GROUP, size), np.uint8)) for size in sizes), room(x)]
    rows = structs.Activations(*(part.ctypes.data for part in parts), k // GROUP)
    for row in range(num_rows):
        library.load().octavo_quantize(table, c.c_void_p(x[row].ctypes.data), k, c.byref(rows), row)
    return Packed(rows, parts)


def rate(work: Work, num_threads: int, min_s: float, table: Any) -> float:
    """Products a second, summed over the threads, each of which computes its share of the columns of every copy."""
    tiles = work.matrices[0].num_tiles
    function = library.load().octavo_linear
    out = np.zeros((work.num_rows, tiles * TILE), np.float32)
    rates = [0.0] * num_threads

    def run(thread: int) -> None:
        first, last = tiles * thread // num_threads, tiles * (thread + 1) // num_threads
        output = structs.Output(out.ctypes.data + first * TILE * 4, tiles * TILE, False)
        numbers = (c.c_int32 * 4)(0, work.num_rows, first, last)
        calls = [(table, c.byref(w), c.byref(work.rows), numbers, c.byref(output)) for w in work.matrices]
        spent, done = 0.0, 0
        while spent < min_s:
            start = time.thread_time()
            for call in calls:
                function(*call)
            spent += time.thread_time() - start
            done += len(calls)
        rates[thread] = done * work.num_rows * (last - first) * TILE * work.matrices[0].k / spent

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def torch_rate(k: int, n: int, num_rows: int, copies: int, min_s: float) -> float:
    """Of one thread: several spin while they wait for each other, which a shared machine punishes."""
    torch.set_num_threads(1)
    x, weights = torch.randn(num_rows, k), [torch.randn(n, k) for _ in range(copies)]
    count, start = 0, time.thread_time()
    while (spent := time.thread_time() - start) < min_s:
        torch.nn.functional.linear(x, weights[count % copies])
        count += 1
    return count * num_rows * k * n / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1,2,4,6,8,16,32,64,256,512")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--cases", default=",".join(map(str, range(len(CASES)))))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--table", default="")
    parser.add_argument("--torch", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    table = library.kernel_table(args.table)
    ghz = clock_ghz()
    print(f"{library.load().octavo_kernel_table_name(table).decode()}, {ghz:.2f} GHz by a chain of additions")
    print("  K x N           rows threads weights     GOP/s   of peak    GB/s   torch f32  ratio")
    for case in map(int, args.cases.split(",")):
        k, n, kind = CASES[case]
        matrices = make_matrices(k, n, kind)
        size = sum(part.nbytes for part in matrices[0].parts)
        for num_threads, num_rows, cold in settings(args):
            rows, copies = make_rows(k, num_rows, table), len(matrices) if cold else 1
            work = Work([matrix.struct for matrix in matrices[:copies]], rows.struct, num_rows)
            best, peer = 0.0, 0.0
            for _ in range(args.rounds):
                best = max(best, rate(work, num_threads, ROUND_S, table))
                if args.torch:
                    others = -(-COLD_BYTES // (4 * k * n)) if cold else 1
                    peer = max(peer, num_threads * torch_rate(k, n, num_rows, others, ROUND_S))
            peak = PRODUCTS_A_CYCLE[kind] * ghz * 1e9 * num_threads
            words = f"  {k:4d} x {n:5d} {kind.name:4s} {num_rows:4d} {num_threads:7d} {'cold' if cold else 'warm':7s}"
            words += f" {2 * best / 1e9:8.1f} {best / peak:8.1%} {best / (k * n * num_rows) * size / 1e9:8.1f}"
            print(words + (f" {2 * peer / 1e9:10.1f} {best / peer:7.2f}" if args.torch else ""), flush=True)


def settings(args: argparse.Namespace) -> list[tuple[int, int, bool]]:
    """Threads, rows, cold. With more rows, reading the weights is no longer what takes the time."""
    return [
        (threads, rows, cold)
        for threads in map(int, args.threads.split(","))
        for rows in map(int, args.rows.split(","))
        for cold in ((True, False) if rows <= COLD_ROWS else (False,))
    ]


if __name__ == "__main__":
    main()
