"""CUDA driver API through ctypes: load a cubin, launch a kernel on torch's stream, encode a TMA tensor map."""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from octavo.errors import KernelError

MAX_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_BUFFER_POINTER, _BUFFER_SIZE, _END = 1, 2, 0  # CU_LAUNCH_PARAM_*
_FREE_SHARED_BYTES = 48 << 10  # more than that has to be asked for

TENSOR_MAP_BYTES = 128
_TENSOR_TYPES = {torch.float16: 6, torch.float32: 7, torch.bfloat16: 9}  # CUtensorMapDataType
_SWIZZLE_128, _L2_256 = 3, 3  # CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B


@cache
def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise KernelError(
            "CUDA kernels need an NVIDIA GPU and its driver, but libcuda.so.1 was not found; "
            "use another back end (octavo kernels list), or CPU tensors, on which they are emulated"
        ) from error


def _call(name: str, *arguments: Any) -> None:
    if code := getattr(_library(), name)(*arguments):
        words = ctypes.c_char_p()
        _library().cuGetErrorString(code, ctypes.byref(words))
        raise KernelError(f"{name}: {(words.value or b'unknown error').decode()} (CUDA error {code})")


def load(cubin: bytes, entry: str, shared_bytes: int, device: int) -> ctypes.c_void_p:
    """The kernel ``entry`` on GPU number ``device``; lives as long as the process."""
    _library()
    with torch.cuda.device(device):
        _bind_context(device)
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuModuleLoadData", ctypes.byref(module), cubin)
        _call("cuModuleGetFunction", ctypes.byref(function), module, entry.encode())
        if shared_bytes > _FREE_SHARED_BYTES:
            _call("cuFuncSetAttribute", function, MAX_DYNAMIC_SHARED_BYTES, shared_bytes)
    return function


class LaunchShape(NamedTuple):
    """``grid``: blocks in each dimension; ``threads``: of a block; ``shared_bytes``: dynamic shared memory of a block."""

    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int


def launch(function: ctypes.c_void_p, shape: LaunchShape, packed: Any, device: int) -> None:
    """On torch's current stream of GPU number ``device``. ``packed``: a ctypes buffer of all parameters."""
    size = ctypes.c_size_t(len(packed))
    extra = (ctypes.c_void_p * 5)(_BUFFER_POINTER, ctypes.addressof(packed), _BUFFER_SIZE, ctypes.addressof(size), _END)
    stream = ctypes.c_void_p(torch._C._cuda_getCurrentRawStream(device))
    words = ("cuLaunchKernel", function, *shape.grid, shape.threads, 1, 1, shape.shared_bytes, stream, None, extra)
    if device == torch.cuda.current_device() and _has_context():
        _call(*words)
        return
    with torch.cuda.device(device):
        _bind_context(device)
        _call(*words)


def _has_context() -> bool:
    """A thread that has called nothing of CUDA yet has none, whatever torch believes its device to be."""
    context = ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(context))
    return context.value is not None


def _bind_context(device: int) -> None:
    """The GPU's primary context, which torch uses too, becomes this thread's."""
    context = ctypes.c_void_p()
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    _call("cuCtxSetCurrent", context)


def tensor_map(matrix: Tensor, box: tuple[int, int]) -> bytes:
    """How the copy engine reads boxes of ``box`` (rows, columns; 128 bytes a row) from a row-major matrix, swizzled by 128 bytes.

    What lies outside the matrix is read as 0. Its address and its rows have to be multiples of 16 bytes.
    """
    return _encode(matrix.data_ptr(), matrix.shape[0], matrix.shape[1], matrix.dtype, box)


@lru_cache(4096)  # weights stay where they are, and torch's allocator hands out the same addresses again
def _encode(address: int, rows: int, columns: int, dtype: torch.dtype, box: tuple[int, int]) -> bytes:
    out = (ctypes.c_uint64 * (2 * TENSOR_MAP_BYTES // 8))()
    aligned = (ctypes.addressof(out) + 63) // 64 * 64  # cuda.h: a CUtensorMap is aligned to 64 bytes
    _call(
        "cuTensorMapEncodeTiled",
        ctypes.c_void_p(aligned),
        _TENSOR_TYPES[dtype],
        2,
        ctypes.c_void_p(address),
        (ctypes.c_uint64 * 2)(columns, rows),
        (ctypes.c_uint64 * 1)(columns * dtype.itemsize),
        (ctypes.c_uint32 * 2)(box[1], box[0]),
        (ctypes.c_uint32 * 2)(1, 1),
        0,  # not interleaved
        _SWIZZLE_128,
        _L2_256,
        0,  # outside is 0
    )
    return ctypes.string_at(aligned, TENSOR_MAP_BYTES)
