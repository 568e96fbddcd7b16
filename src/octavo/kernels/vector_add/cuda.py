"""vector_add in CUDA C++: 16-byte loads in a grid-stride loop; one element at a time where a pointer is not aligned."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from octavo.kernels.gpu.module import CudaAhead, Kernel, num_multiprocessors
from octavo.kernels.gpu.nvrtc import CudaSource
from octavo.kernels.gpu.types import aligned, type_name

THREADS, PACKS = 256, 2
BLOCKS_PER_MULTIPROCESSOR = 8  # 2,048 threads, as many as there is room for


def source(dtype: torch.dtype, vector: bool) -> CudaSource:
    """``vector``: in packs of 16 bytes."""
    defines = (("T", type_name(dtype)), ("VECTOR", int(vector)), ("PACKS", PACKS))
    return CudaSource(Path(__file__).with_name("vector_add.cu"), "vector_add", "PPPq", THREADS, defines=defines)


@cache
def _kernel(dtype: torch.dtype, vector: bool) -> Kernel:
    return Kernel(source(dtype, vector))


def vector_add(a: Tensor, b: Tensor) -> Tensor:
    """``a``, ``b``: of one shape and dtype -> the same."""
    out, count = torch.empty_like(a), a.numel()
    if count:
        vector = aligned(a, b, out)
        work = THREADS * (PACKS * 16 // a.element_size() if vector else 1)
        blocks = min(-(-count // work), BLOCKS_PER_MULTIPROCESSOR * num_multiprocessors(a.device))
        _kernel(a.dtype, vector).launch(a.device, blocks, a, b, out, count)
    return out


AHEAD = tuple(
    CudaAhead(f"{name} {'packs' if vector else 'elements'}", source(dtype, vector))
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    for vector in (True, False)
)
