"""NVIDIA CUB's sum, a baseline for the benchmark, compiled by nvcc where a toolkit is installed."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from octavo.errors import KernelError
from octavo.folders import cache_folder
from octavo.kernels.gpu.shared_library import shared_library

SOURCE = Path(__file__).with_name("cub_baseline.cu")


def cub_sum(x: Tensor, last: bool = False) -> Tensor:
    """The sum of all elements of ``x``, float32 or bfloat16, as a float32 of no dimensions."""
    if last or x.dtype not in (torch.float32, torch.bfloat16):
        raise KernelError(f"the CUB baseline sums all of a float32 or bfloat16 tensor, not {x.dtype} with last={last}")
    out, function = x.new_empty((), dtype=torch.float32), _function(torch.cuda.get_device_capability(x.device))
    stream = ctypes.c_void_p(torch.cuda.current_stream(x.device).cuda_stream)
    size = ctypes.c_size_t()
    half = x.dtype == torch.bfloat16
    words = (ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), ctypes.c_longlong(x.numel()), int(half))
    scratch: Tensor | None = None
    for _ in range(2):  # first it says how much scratch it wants
        address = ctypes.c_void_p(0 if scratch is None else scratch.data_ptr())
        if code := function(*words, address, ctypes.byref(size), stream):
            raise KernelError(f"CUB's sum failed with CUDA error {code}")
        if scratch is None:
            scratch = x.new_empty(max(1, size.value), dtype=torch.uint8)
    return out


@cache
def _function(capability: tuple[int, int]) -> ctypes._NamedFuncPointer:
    return ctypes.CDLL(str(build(f"sm_{capability[0]}{capability[1]}"))).octavo_cub_sum


def build(architecture: str) -> Path:
    """The shared library, from the cache if it is there; ``KernelError`` without nvcc, or with its words."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        raise KernelError("the CUB baseline is compiled by nvcc, which is not on the path")
    key = hashlib.sha256(SOURCE.read_bytes() + f"{nvcc} {architecture}".encode()).hexdigest()[:16]
    file = cache_folder() / "kernels" / "baselines" / f"cub-{key}.so"
    options = ["-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", f"-arch={architecture}"]
    return shared_library(file, [nvcc, *options, str(SOURCE)], f"nvcc does not compile {SOURCE.name}")
