"""Study of many small products: sequential, on several streams, as a CUDA graph, in one launch (``scripts/gpu``).

    scripts/gpu concurrency

A product of 128 x 1024 x 1024 is 8 blocks of 128 x 128, so a GPU of 132 multiprocessors idles at 94 %. Predicted for 32 of them
on an H200, before any measurement; a block needs about 32 K tiles x 0.3 us = 10 us however empty the GPU is:

    serial            32 x 10 us = 320 us; launching (5 us each from Python) hides behind it
    4 streams         80 us of work, but 32 launches and their events take Python 200 us: the host is the bound
    graph, serial     320 us: a graph saves launching, which was not the bound
    graph, 4 streams  80 us: what the streams were meant for
    one launch        256 blocks, 2 side by side on a multiprocessor: 10 to 13 us; a stack of equal sizes is its price
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from octavo.kernels.fused_gemm.cuda import mma
from octavo.kernels.gpu.lab.timing import dispatch_overhead, measure
from octavo.kernels.matmul.cuda import run_mma


class Stack(NamedTuple):
    """``num`` products of ``[rows, inner]`` and ``[inner, columns]``."""

    num: int
    rows: int
    inner: int
    columns: int


SHAPES = (Stack(32, 128, 1024, 1024), Stack(32, 16, 1024, 1024), Stack(8, 1024, 1024, 1024))
TINY = (Stack(2, 16, 32, 32),)
NUM_STREAMS = 4


def grouped(a: Tensor, b: Tensor) -> Tensor:
    """``a``: ``[G, M, K]``, ``b``: ``[G, K, N]`` -> ``[G, M, N]`` by one launch."""
    out = a.new_empty((a.shape[0], a.shape[1], b.shape[2]))
    run_mma(a, b, None, out, "none")
    return out


def serial(a: Tensor, b: Tensor) -> list[Tensor]:
    """One launch each, on the current stream."""
    return [mma(one, other) for one, other in zip(a, b, strict=True)]


def streamed(a: Tensor, b: Tensor, streams: Sequence[torch.cuda.Stream]) -> list[Tensor]:
    """In turns on ``streams``, which begin when the current stream is here and which it waits for."""
    current, out = torch.cuda.current_stream(), []
    for stream in streams:
        stream.wait_stream(current)
    for index, (one, other) in enumerate(zip(a, b, strict=True)):
        with torch.cuda.stream(streams[index % len(streams)]):
            out.append(mma(one, other))
    for stream in streams:
        current.wait_stream(stream)
    return out


def captured(call: Callable[[], object]) -> Callable[[], None]:
    """``call`` as a CUDA graph."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def ways(a: Tensor, b: Tensor) -> dict[str, Callable[[], object]]:
    """By name; streams and graphs on a GPU alone."""
    calls: dict[str, Callable[[], object]] = {"serial": lambda: serial(a, b)}
    if a.is_cuda:
        streams = [torch.cuda.Stream(a.device) for _ in range(NUM_STREAMS)]  # type: ignore[no-untyped-call]
        calls |= {
            f"{NUM_STREAMS} streams": lambda: streamed(a, b, streams),
            "graph, serial": captured(lambda: serial(a, b)),
            f"graph, {NUM_STREAMS} streams": captured(lambda: streamed(a, b, streams)),
        }
    return calls | {"one launch": lambda: grouped(a, b), "torch.bmm": lambda: torch.bmm(a, b)}


def study(shape: Stack, device: torch.device) -> Iterator[dict[str, Any]]:
    """A row for each way, all side by side: times on the GPU, and seconds that the host takes to issue them.

    The GPU's times begin behind a flush of its cache, which hides what the host takes: whoever has nothing else in the queue
    waits for the larger of the two.
    """
    count, rows, inner, columns = shape
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn((count, rows, inner), generator=generator, device=device, dtype=torch.bfloat16)
    b = torch.randn((count, inner, columns), generator=generator, device=device, dtype=torch.bfloat16) / inner**0.5
    calls = ways(a, b)
    timed, host = measure(calls, device), dispatch_overhead(calls, device, repetitions=20)
    what = f"{count} x ({rows} x {inner} x {columns})"
    for name, time in timed.times.items():
        yield {"shape": what, "way": name, "host_s": host[name], **asdict(time)}
    for name, error in timed.errors.items():
        yield {"shape": what, "way": name, "error": error}
