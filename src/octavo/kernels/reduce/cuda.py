"""``reduce`` in CUDA C++: each row is split over blocks, and the partial sums are summed by a second launch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from octavo.kernels.gpu.module import CudaAhead, Kernel, num_multiprocessors
from octavo.kernels.gpu.nvrtc import CudaSource
from octavo.kernels.gpu.types import type_name

THREADS, PACKS = 256, 4
BLOCKS_PER_MULTIPROCESSOR = 8  # 2,048 threads, as many as there is room for
SHORT = 1024  # elements of a row for which a warp is enough


def source(entry: str, dtype: torch.dtype) -> CudaSource:
    """``entry``: a kernel of ``reduce.cu``."""
    defines = (("T", type_name(dtype)), ("PACKS", PACKS))
    parameters = "PPqq" if entry == "reduce_short_rows" else "PPqi"
    return CudaSource(Path(__file__).with_name("reduce.cu"), entry, parameters, THREADS, defines=defines)


@cache
def _kernel(entry: str, dtype: torch.dtype) -> Kernel:
    return Kernel(source(entry, dtype))


def interleaved(x: Tensor, last: bool = False) -> Tensor:
    """Step 1: the tree of a textbook."""
    return _one_each("reduce_interleaved", x, last)


def sequential(x: Tensor, last: bool = False) -> Tensor:
    """Step 2: the tree from the other end."""
    return _one_each("reduce_sequential", x, last)


def strided(x: Tensor, last: bool = False) -> Tensor:
    """Step 3: many elements a thread."""
    return _many_each("reduce_strided", x, last, 4 * THREADS)


def shuffle(x: Tensor, last: bool = False) -> Tensor:
    """Step 4: warp shuffles."""
    return _many_each("reduce_shuffle", x, last, 4 * THREADS)


def packs(x: Tensor, last: bool = False) -> Tensor:
    """Step 5: 16-byte loads, several in flight; a warp for a short row."""
    rows, size = _rows(x, last)
    if size > SHORT or not rows:
        return _many_each("reduce_packs", x, last, PACKS * THREADS * 16 // x.element_size())
    out = _empty(x, last)
    warps = THREADS // 32
    _kernel("reduce_short_rows", x.dtype).launch(x.device, -(-rows // warps), x, out, size, rows)
    return out


def _one_each(entry: str, x: Tensor, last: bool) -> Tensor:
    """A thread has one element, so a row of more than ``THREADS`` takes several launches."""
    rows, size = _rows(x, last)
    out = _empty(x, last)
    while rows:
        splits = max(1, -(-size // THREADS))
        sums = out if splits == 1 else x.new_empty(rows * splits, dtype=torch.float32)
        _kernel(entry, x.dtype).launch(x.device, rows * splits, x, sums, size, splits)
        if sums is out:
            break
        x, size = sums, splits
    return out


def _many_each(entry: str, x: Tensor, last: bool, enough: int) -> Tensor:
    """Two launches at most. ``enough``: elements that are worth a block."""
    rows, size = _rows(x, last)
    out = _empty(x, last)
    if not rows:
        return out
    wanted = BLOCKS_PER_MULTIPROCESSOR * num_multiprocessors(x.device)
    splits = max(1, min(-(-wanted // rows), -(-size // enough)))
    if splits == 1:
        _kernel(entry, x.dtype).launch(x.device, rows, x, out, size, 1)
        return out
    sums = x.new_empty(rows * splits, dtype=torch.float32)
    _kernel(entry, x.dtype).launch(x.device, rows * splits, x, sums, size, splits)
    _kernel(entry, torch.float32).launch(x.device, rows, sums, out, splits, 1)
    return out


def _rows(x: Tensor, last: bool) -> tuple[int, int]:
    """How many, and of how many elements; without ``last`` all is one row."""
    if not last:
        return 1, x.numel()
    return x.shape[:-1].numel(), x.shape[-1]


def _empty(x: Tensor, last: bool) -> Tensor:
    return x.new_empty(x.shape[:-1] if last else (), dtype=torch.float32)


AHEAD = (
    *(
        CudaAhead(f"{entry} bfloat16", source(entry, torch.bfloat16))
        for entry in (
            "reduce_interleaved",
            "reduce_sequential",
            "reduce_strided",
            "reduce_shuffle",
            "reduce_short_rows",
        )
    ),
    *(
        CudaAhead(f"reduce_packs {type_name(dtype)}", source("reduce_packs", dtype))
        for dtype in (torch.bfloat16, torch.float32)
    ),
)
