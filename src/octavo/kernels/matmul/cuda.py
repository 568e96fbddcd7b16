"""The matrix product in CUDA C++, one kernel per optimisation step; ``steps.py`` says why each should be faster.

Steps 5 and 6 are float32's, 7 and 8 the 16-bit types'. What a step cannot take goes to the best one before it that can:
other dtypes; for wgmma and TMA also another GPU than Hopper, K = 0, or rows that do not begin at multiples of 16 bytes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from octavo.kernels.gpu.module import CudaAhead, Kernel, architecture, num_multiprocessors, tensor_map
from octavo.kernels.gpu.nvrtc import CudaSource
from octavo.kernels.gpu.types import rows_aligned, type_name

HERE = Path(__file__).parent
SIMPLE = {  # threads and the block's tile
    "matmul_naive": (256, 32, 8),
    "matmul_coalesced": (256, 8, 32),
    "matmul_shared": (1024, 32, 32),
    "matmul_register": (256, 128, 128),
}
SIDE = 128
ASYNC_THREADS, ASYNC_STAGES = 256, {"matmul_vector": 2, "matmul_warp": 3}
ASYNC_STAGE_BYTES = 4 * (SIDE * (16 + 4) + 16 * SIDE)
MMA_THREADS, MMA_STAGES, MMA_DEPTH = 128, 4, 32
WGMMA_THREADS, WGMMA_DEPTH = 384, 64
WGMMA_STAGES = {256: 4, 128: 6}  # by columns of a tile: as many as 227 KB hold
ACTIVATIONS = ("none", "gelu", "gelu_tanh", "silu")  # in the order of ``octavo.cuh``


def simple_source(entry: str, dtype: torch.dtype) -> CudaSource:
    """Steps 1 to 4."""
    return CudaSource(HERE / "matmul.cu", entry, "PPPiii", SIMPLE[entry][0], defines=(("T", type_name(dtype)),))


def async_source(entry: str, aligned: bool) -> CudaSource:
    """Steps 5 and 6."""
    stages = ASYNC_STAGES[entry]
    defines = (("STAGES", stages), ("ALIGNED", int(aligned)))
    shared = stages * ASYNC_STAGE_BYTES
    return CudaSource(HERE / "matmul_async.cu", entry, "PPPiii", ASYNC_THREADS, shared, defines)


def mma_source(dtype: torch.dtype, aligned: bool, bias: bool = False, activation: str = "none") -> CudaSource:
    """Step 7."""
    defines = (*_epilogue(dtype, bias, activation), ("STAGES", MMA_STAGES), ("ALIGNED", str(aligned).lower()))
    shared = MMA_STAGES * 2 * MMA_DEPTH * 2 * SIDE
    return CudaSource(HERE / "matmul_mma.cu", "matmul_mma", "PPPPiii", MMA_THREADS, shared, defines)


def wgmma_source(dtype: torch.dtype, columns: int, bias: bool = False, activation: str = "none") -> CudaSource:
    """Step 8."""
    stages = WGMMA_STAGES[columns]
    defines = (*_epilogue(dtype, bias, activation), ("STAGES", stages), ("COLUMNS", columns))
    shared = stages * (WGMMA_DEPTH * 2 * (SIDE + columns) + 2 * 8)
    return CudaSource(HERE / "matmul_wgmma.cu", "matmul_wgmma", "TTPPiii", WGMMA_THREADS, shared, defines, suffix="a")


def _epilogue(dtype: torch.dtype, bias: bool, activation: str) -> tuple[tuple[str, str | int], ...]:
    return ("T", type_name(dtype)), ("BIAS", int(bias)), ("ACTIVATION", ACTIVATIONS.index(activation))


_simple = cache(lambda entry, dtype: Kernel(simple_source(entry, dtype)))
_async = cache(lambda entry, aligned: Kernel(async_source(entry, aligned)))
_mma = cache(lambda dtype, aligned, bias, activation: Kernel(mma_source(dtype, aligned, bias, activation)))
_wgmma = cache(lambda dtype, columns, bias, activation: Kernel(wgmma_source(dtype, columns, bias, activation)))


def naive(a: Tensor, b: Tensor) -> Tensor:
    """Step 1: a thread an element, neighbouring threads in neighbouring rows."""
    return _run_simple("matmul_naive", a, b)


def coalesced(a: Tensor, b: Tensor) -> Tensor:
    """Step 2: neighbouring threads in neighbouring columns."""
    return _run_simple("matmul_coalesced", a, b)


def shared(a: Tensor, b: Tensor) -> Tensor:
    """Step 3: tiles in shared memory."""
    return _run_simple("matmul_shared", a, b)


def register(a: Tensor, b: Tensor) -> Tensor:
    """Step 4: 8 x 8 elements a thread."""
    return _run_simple("matmul_register", a, b)


def vector(a: Tensor, b: Tensor) -> Tensor:
    """Step 5: 16-byte loads, copies that run ahead."""
    return _run_async("matmul_vector", a, b)


def warp(a: Tensor, b: Tensor) -> Tensor:
    """Step 6: warps as compact tiles, three stages."""
    return _run_async("matmul_warp", a, b)


def mma(a: Tensor, b: Tensor) -> Tensor:
    """Step 7: tensor cores."""
    if a.dtype == torch.float32:
        return warp(a, b)
    out = _empty(a, b)
    run_mma(a, b, None, out, "none")
    return out


def wgmma(a: Tensor, b: Tensor) -> Tensor:
    """Step 8: Hopper's tensor cores, fed by its copy engine."""
    if not takes_wgmma(a, b):
        return mma(a, b)
    out = _empty(a, b)
    run_wgmma(a, b, None, out, "none")
    return out


def takes_wgmma(a: Tensor, b: Tensor) -> bool:
    """A Hopper GPU (or the emulator), 16-bit elements, and what TMA can describe."""
    if a.dtype == torch.float32 or not a.numel() or not rows_aligned(a.shape[1], a) or not rows_aligned(b.shape[1], b):
        return False
    return a.device.type == "cpu" or architecture(a.device.index) == 90


def run_mma(a: Tensor, b: Tensor, bias: Tensor | None, out: Tensor, activation: str) -> None:
    """``out = activation(a @ b + bias)`` by step 7; 16-bit types. ``[G, ...]``: G products of one size in one launch."""
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    if out.numel():
        aligned = rows_aligned(inner, a) and rows_aligned(columns, b, out)
        kernel = _mma(a.dtype, aligned, bias is not None, activation)
        blocks = -(-rows // SIDE) * -(-columns // SIDE), a.shape[0] if a.dim() == 3 else 1, 1
        kernel.launch(a.device, blocks, a, b, 0 if bias is None else bias, out, rows, columns, inner)


def run_wgmma(a: Tensor, b: Tensor, bias: Tensor | None, out: Tensor, activation: str) -> None:
    """As ``run_mma``, by step 8; only what ``takes_wgmma``."""
    (rows, inner), columns = a.shape, b.shape[1]
    if not out.numel():
        return
    blocks = num_multiprocessors(a.device)
    down = -(-rows // SIDE)
    across = 256 if down * -(-columns // 256) >= blocks else 128  # smaller tiles rather than idle multiprocessors
    tiles = down * -(-columns // across)
    maps = tensor_map(a, (SIDE, 64)), tensor_map(b, (WGMMA_DEPTH, 64))
    kernel = _wgmma(a.dtype, across, bias is not None, activation)
    kernel.launch(a.device, min(tiles, blocks), *maps, 0 if bias is None else bias, out, rows, columns, inner)


def _run_simple(entry: str, a: Tensor, b: Tensor) -> Tensor:
    out, (rows, inner), columns = _empty(a, b), a.shape, b.shape[1]
    if out.numel():
        _, height, width = SIMPLE[entry]
        blocks = -(-rows // height) * -(-columns // width)
        _simple(entry, a.dtype).launch(a.device, blocks, a, b, out, rows, columns, inner)
    return out


def _run_async(entry: str, a: Tensor, b: Tensor) -> Tensor:
    if a.dtype != torch.float32:
        return register(a, b)
    out, (rows, inner), columns = _empty(a, b), a.shape, b.shape[1]
    if out.numel():
        aligned = rows_aligned(inner, a) and rows_aligned(columns, b, out)
        blocks = -(-rows // SIDE) * -(-columns // SIDE)
        _async(entry, aligned).launch(a.device, blocks, a, b, out, rows, columns, inner)
    return out


def _empty(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((a.shape[0], b.shape[1]))


AHEAD = (
    *(CudaAhead(f"{entry} float32", simple_source(entry, torch.float32)) for entry in SIMPLE),
    *(
        CudaAhead(f"{entry} {'aligned' if aligned else 'any'}", async_source(entry, aligned))
        for entry in ASYNC_STAGES
        for aligned in (True, False)
    ),
    CudaAhead("matmul_mma bfloat16 aligned", mma_source(torch.bfloat16, True)),
    CudaAhead("matmul_mma float16 any", mma_source(torch.float16, False)),
    CudaAhead("matmul_wgmma bfloat16 256", wgmma_source(torch.bfloat16, 256), architectures=(90,)),
    CudaAhead("matmul_wgmma float16 128", wgmma_source(torch.float16, 128), architectures=(90,)),
)
