"""layer_norm_gelu in CUDA C++: a row in the registers of a warp or a block; element by element where packs do not fit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from octavo.kernels.gpu.module import CudaAhead, Kernel
from octavo.kernels.gpu.nvrtc import CudaSource
from octavo.kernels.gpu.types import rows_aligned, type_name

MOST_PACKS = 4  # a thread's: 64 bytes in flight, and 32 registers for 16-bit values
WARP, SHORT_THREADS, LONG_THREADS = 32, 256, (128, 256, 512, 1024)


def source(dtype: torch.dtype, size: int, aligned: bool, approximate: str) -> CudaSource:
    """For rows of ``size``, which begin at multiples of 16 bytes if ``aligned``."""
    threads, row_threads, packs = _threads_for(size * dtype.itemsize, aligned)
    defines = (
        ("T", type_name(dtype)),
        ("ROW_THREADS", row_threads),
        ("PACKS", packs),
        ("ACTIVATION", "GELU_TANH" if approximate == "tanh" else "GELU"),
    )
    return CudaSource(
        Path(__file__).with_name("layer_norm_gelu.cu"), "layer_norm_gelu", "PPPPqif", threads, defines=defines
    )


class Threads(NamedTuple):
    """Of a block, of a row, and the packs of 16 bytes that each has; 0 packs: element by element."""

    block: int
    row: int
    packs: int


def _threads_for(row_bytes: int, aligned: bool) -> Threads:
    packs = row_bytes // 16
    if packs <= WARP * MOST_PACKS:
        return Threads(SHORT_THREADS, WARP, -(-packs // WARP) if aligned else 0)
    for threads in LONG_THREADS:
        if packs <= threads * MOST_PACKS:
            return Threads(threads, threads, -(-packs // threads) if aligned else 0)
    return Threads(LONG_THREADS[-1], LONG_THREADS[-1], 0)


_kernel = cache(lambda dtype, size, aligned, approximate: Kernel(source(dtype, size, aligned, approximate)))


def layer_norm_gelu(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, approximate: str = "none") -> Tensor:
    """``x``: ``[..., N]``; ``weight``, ``bias``: ``[N]`` -> shape and dtype of ``x``."""
    out, size = torch.empty_like(x), x.shape[-1]
    rows = x.numel() // size
    if rows:
        kernel = _kernel(x.dtype, size, rows_aligned(size, x, weight, bias, out), approximate)
        blocks = -(-rows // (SHORT_THREADS // WARP)) if size * x.element_size() <= WARP * MOST_PACKS * 16 else rows
        kernel.launch(x.device, blocks, x, weight, bias, out, rows, size, eps)
    return out


AHEAD = (
    *(
        CudaAhead(f"{type_name(dtype)} {size}", source(dtype, size, True, "none"))
        for dtype, size in (
            (torch.bfloat16, 1024),
            (torch.bfloat16, 4096),
            (torch.float16, 32768),
            (torch.float32, 4096),
        )
    ),
    CudaAhead("bfloat16 any tanh", source(torch.bfloat16, 100_000, False, "tanh")),
)
