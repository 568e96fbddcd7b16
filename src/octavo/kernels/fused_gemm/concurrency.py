"""Many small products: one after the other, on several streams, as a CUDA graph, or in one launch? A study to be run.

    python -m octavo.kernels.fused_gemm.concurrency [--out FILE.json]

A product of 128 x 1024 x 1024 is 8 blocks of 128 x 128, so a GPU of 132 multiprocessors idles at 94 %. Predicted for 32 of them
on an H200, before any measurement; a block needs about 32 slabs x 0.3 us = 10 us however empty the GPU is:

    serial            32 x 10 us = 320 us; launching (5 us each from Python) hides behind it
    4 streams         80 us of work, but 32 launches and their events take Python 200 us: the host is the bound
    graph, serial     320 us: a graph saves launching, which was not the bound
    graph, 4 streams  80 us: what the streams promised
    one launch        256 blocks, 2 side by side on a multiprocessor: 10 to 13 us; a stack of equal sizes is its price
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from octavo.errors import KernelError
from octavo.kernels.fused_gemm.cuda import mma
from octavo.kernels.gpu.timing import Timed, dispatch_overhead, measure
from octavo.kernels.matmul.cuda import run_mma

SHAPES = ((32, 128, 1024, 1024), (32, 16, 1024, 1024), (8, 1024, 1024, 1024))  # products, M, K, N
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


def study(shape: tuple[int, int, int, int], device: torch.device) -> tuple[Timed, dict[str, float]]:
    """All ways side by side, and cuBLAS' own batched product: times on the GPU, and seconds that the host takes to issue them.

    The GPU's times begin behind a flush of its cache, which hides what the host takes: whoever has nothing else in the queue
    waits for the larger of the two.
    """
    count, rows, inner, columns = shape
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn((count, rows, inner), generator=generator, device=device, dtype=torch.bfloat16)
    b = torch.randn((count, inner, columns), generator=generator, device=device, dtype=torch.bfloat16) / inner**0.5
    streams = [torch.cuda.Stream(device) for _ in range(NUM_STREAMS)]  # type: ignore[no-untyped-call]
    calls = {
        "serial": lambda: serial(a, b),
        f"{NUM_STREAMS} streams": lambda: streamed(a, b, streams),
        "graph, serial": captured(lambda: serial(a, b)),
        f"graph, {NUM_STREAMS} streams": captured(lambda: streamed(a, b, streams)),
        "one launch": lambda: grouped(a, b),
        "torch.bmm": lambda: torch.bmm(a, b),
    }
    return measure(calls, device), dispatch_overhead(calls, device, repetitions=20)


def main(arguments: Sequence[str] | None = None) -> None:
    """A line for each way and shape; ``--out``: as JSON as well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="write the figures to this file")
    asked, rows = parser.parse_args(arguments), []
    if not torch.cuda.is_available():
        raise KernelError("the study times a GPU, and torch sees none here")
    device = torch.device("cuda", torch.cuda.current_device())
    for shape in SHAPES:
        timed, host = study(shape, device)
        words = f"{shape[0]} x ({' x '.join(map(str, shape[1:]))})"
        for name, time in timed.times.items():
            spread = f"{1e6 * time.low_s:.1f} to {1e6 * time.high_s:.1f}"
            print(f"{words:28} {name:20} {1e6 * time.median_s:9.1f} us ({spread}), host {1e6 * host[name]:.1f} us")
            rows.append({"shape": words, "way": name, "host_s": host[name], **asdict(time)})
        for name, error in timed.errors.items():
            print(f"{words:28} {name:20} failed: {error}")
            rows.append({"shape": words, "way": name, "error": error})
    if asked.out:
        asked.out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(device), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
