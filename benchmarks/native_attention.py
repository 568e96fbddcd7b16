"""Benchmark of native attention on one core: decode against memory bandwidth, prefill against multiply-add throughput.

Each case runs in turns with torch's scaled_dot_product_attention (float32, keys and values contiguous and already gathered, so
without paging), one thread each, and with the limits measured in the same turns: the best of several tries, median beside it.
Decode walks through caches of more than a last-level cache in all, as the layers of a model do.

    python benchmarks/native_attention.py [--heads 9 --kv-heads 3 --head-dim 64] [--tries 9] [--isa avx2] [--json FILE]
"""

from __future__ import annotations

import argparse
import ctypes as c
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from octavo.kernels.native.operations import Operations, operations
from octavo.kernels.native.structs import SUB_BLOCK, AttentionShape, KvLayer, KvShape, KvType
from record import environment

DTYPES = {KvType.F32: torch.float32, KvType.BF16: torch.bfloat16, KvType.I8: torch.int8}
DECODE = [(1, 128), (1, 1024), (1, 8192), (16, 128), (16, 1024), (16, 4096), (64, 128), (64, 1024)]
PREFILL = (128, 512, 1024, 2048)
COLD_BYTES = 192 << 20  # more than the largest last-level cache here


@dataclass
class Layer:
    """One layer's cache for a whole batch, blocks in random order."""

    struct: KvLayer
    tensors: list[torch.Tensor]


class Case:
    """A batch of ``batch`` requests with ``rows`` new tokens each at the end of ``context``."""

    def __init__(
        self, shape: AttentionShape, kind: KvType, batch: int, context: int, rows: int, num_layers: int
    ) -> None:
        self.shape, self.batch, self.context, self.rows = shape, batch, context, rows
        blocks = -(-context // SUB_BLOCK)
        self.tables = np.random.default_rng(0).permutation(batch * blocks).astype(np.int32).reshape(batch, blocks)
        self.kv = KvShape(kind, batch * blocks, SUB_BLOCK, shape.num_kv_heads, shape.head_dim)
        self.layers = [self._layer(batch * blocks, DTYPES[kind]) for _ in range(num_layers)]
        self.q = np.random.default_rng(1).standard_normal((batch * rows, shape.num_heads * shape.head_dim)).astype("f4")
        self.out = np.empty_like(self.q)

    def _layer(self, blocks: int, dtype: torch.dtype) -> Layer:
        size = (blocks, self.shape.num_kv_heads, SUB_BLOCK * self.shape.head_dim)
        tensors = [torch.randint(-9, 9, size, dtype=torch.int8).to(dtype) for _ in range(2)]
        tensors += [torch.full((blocks, self.shape.num_kv_heads, SUB_BLOCK), 0.1) for _ in range(2)]
        return Layer(KvLayer(*(tensor.data_ptr() for tensor in tensors)), tensors)

    def run(self, ops: Operations, layer: Layer) -> None:
        size = ops.attention_scratch(c.byref(self.shape), self.rows)
        scratch = np.empty(size + 16, np.float32)
        scratch_at = (scratch.ctypes.data + 63) & ~63
        stride, references = self.q.shape[1], (c.byref(self.shape), c.byref(self.kv), c.byref(layer.struct))
        for request in range(self.batch):
            row, first = request * self.rows, self.context - self.rows
            q, out = self.q.ctypes.data + row * stride * 4, self.out.ctypes.data + row * stride * 4
            table = self.tables.ctypes.data + request * self.tables.shape[1] * 4
            for head in range(self.shape.num_kv_heads):
                ops.attention(*references, table, first, self.rows, head, q, stride, out, stride, scratch_at)


def torch_case(
    shape: AttentionShape, batch: int, context: int, rows: int, num_layers: int
) -> list[Callable[[], object]]:
    """The same work by torch, one callable a layer; float32 keys and values, gathered."""

    def one() -> Callable[[], object]:
        q = torch.randn(batch, shape.num_heads, rows, shape.head_dim)
        k, v = (torch.randn(batch, shape.num_kv_heads, context, shape.head_dim) for _ in range(2))
        causal = rows == context
        return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)

    return [one() for _ in range(num_layers)]


def read_limit() -> Callable[[], float]:
    data = torch.ones(48 << 20)
    return lambda: data.numel() * 4 / seconds(lambda: data.sum()) / 1e9


def arithmetic_limit() -> Callable[[], float]:
    a, b = torch.randn(768, 768), torch.randn(768, 768)
    return lambda: 2 * 768**3 / seconds(lambda: a @ b) / 1e9


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this thread: others on the machine do not count."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def measure(work: dict[str, Callable[[], float]], tries: int) -> dict[str, list[float]]:
    """Everything in turns, `tries` times, after one turn to warm up."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(tries + 1):
        for name, one in work.items():
            rate = one()
            if turn:
                found[name].append(rate)
    return found


def cases(
    shape: AttentionShape, ops: Operations, batch: int, context: int, rows: int
) -> dict[str, Callable[[], float]]:
    """For every cache type and for torch a callable that returns the rate of one try: GB/s of decode, GFLOP/s of prefill."""
    elements = 2 * batch * context * shape.num_kv_heads * shape.head_dim
    operations_done = 4 * batch * shape.num_heads * shape.head_dim * sum(range(context - rows + 1, context + 1))
    made: dict[str, Callable[[], float]] = {}

    def add(name: str, bytes_each: int, layers: list[Callable[[], object]]) -> None:
        amount = operations_done if rows > 1 else elements * bytes_each
        made[name] = lambda: amount * len(layers) / seconds(lambda: [layer() for layer in layers]) / 1e9

    for kind, dtype in DTYPES.items():
        num_layers = 1 if rows > 1 else -(-COLD_BYTES // (elements * dtype.itemsize))
        case = Case(shape, kind, batch, context, rows, num_layers)
        runs = [lambda case=case, layer=layer: case.run(ops, layer) for layer in case.layers]
        add(kind.name.lower(), dtype.itemsize, runs)
    add("torch", 4, torch_case(shape, batch, context, rows, 1 if rows > 1 else -(-COLD_BYTES // (elements * 4))))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("heads", 9), ("kv-heads", 3), ("head-dim", 64), ("window", 0), ("tries", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--isa", default="")
    parser.add_argument("--only", choices=("decode", "prefill"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = AttentionShape(args.heads, args.kv_heads, args.head_dim, args.window, args.head_dim**-0.5, 0.0)
    ops, results = operations(args.isa), []
    print(
        f"{ops.name.decode()}; one thread; rate and (of the limit), best of {args.tries}; torch: times native bf16 is faster"
    )
    for kind, (batch, context, rows) in [
        *(("decode", (batch, context, 1)) for batch, context in DECODE if args.only != "prefill"),
        *(("prefill", (1, length, length)) for length in PREFILL if args.only != "decode"),
    ]:
        work = cases(shape, ops, batch, context, rows)
        work["limit"] = read_limit() if kind == "decode" else arithmetic_limit()
        found = measure(work, args.tries)
        best = {name: max(rates) for name, rates in found.items()}
        in_bytes = {"f32": 4, "bf16": 2, "i8": 1, "torch": 4} if kind == "decode" else dict.fromkeys(best, 1)
        shown = "  ".join(
            f"{n} {best[n]:6.1f} ({best[n] / best['limit']:4.0%})" for n in ("f32", "bf16", "i8", "torch")
        )
        faster = best["bf16"] / in_bytes["bf16"] / (best["torch"] / in_bytes["torch"])
        unit = "GB/s" if kind == "decode" else "GFLOP/s"
        print(
            f"{kind:7} batch {batch:2} context {context:4}  {shown}  limit {best['limit']:5.1f} {unit}  torch x{faster:.1f}"
        )
        medians = {name: statistics.median(rates) for name, rates in found.items()}
        results.append(
            {"kind": kind, "batch": batch, "context": context, "unit": unit, "best": best, "median": medians}
        )
    if args.json:
        args.json.write_text(json.dumps({"environment": environment(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
