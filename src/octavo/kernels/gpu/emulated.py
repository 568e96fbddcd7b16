"""Emulation of CUDA kernels on CPU tensors, for tests: the same source compiled by the C++ compiler (``cuda/emulated.h``).

What Triton's interpreter is for Triton: slow, for small inputs; a fibre per CUDA thread, warps and barriers included.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from octavo.errors import KernelError
from octavo.folders import cache_folder
from octavo.kernels.gpu.driver import TENSOR_MAP_BYTES
from octavo.kernels.gpu.nvrtc import HEADERS, CudaSource
from octavo.kernels.gpu.shared_library import shared_library

FLAGS = ("-std=c++20", "-O1", "-shared", "-fPIC", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas")
_DEFINED = "-DOCTAVO_EMULATED"
NUM_MULTIPROCESSORS = 3  # of the machine that is played: few, so that a persistent kernel takes several tiles in turn

_ENTRY = """
static void body_{entry}(const unsigned char* arguments) {{ emulated::call({entry}, arguments); }}
extern "C" __attribute__((visibility("default")))
const char* emulate_{entry}(const unsigned char* arguments, const unsigned* sizes, size_t shared_bytes, uint64_t seed) {{
  emulated::block.body = body_{entry};
  emulated::block.arguments = arguments;
  return emulated::run_grid(sizes, shared_bytes, seed);
}}
"""


def launch(source: CudaSource, grid: tuple[int, int, int], packed: Any) -> None:
    """Every block of ``grid``; ``KernelError`` if the threads deadlock or write past their shared memory."""
    sizes = (ctypes.c_uint * 6)(*grid, source.threads, 1, 1)
    seed = int.from_bytes(os.urandom(4))
    problem = _function(source)(packed, sizes, ctypes.c_size_t(source.shared_bytes), ctypes.c_uint64(seed))
    if problem is not None:
        raise KernelError(
            f"{source.path.name}, {source.entry}, emulated in the order of seed {seed}: {problem.decode()}"
        )


def tensor_map(matrix: Tensor, box: tuple[int, int]) -> bytes:
    """What ``emulated::TensorMap`` in ``cuda/asynchronous.cuh`` reads."""
    rows, columns = matrix.shape
    fields = struct.pack("@PqqiiI", matrix.data_ptr(), rows, columns, *box, matrix.element_size())
    return fields.ljust(TENSOR_MAP_BYTES, b"\0")


@cache
def _function(source: CudaSource) -> Any:
    # PyDLL: one launch at a time, the block that runs is the library's state
    function = getattr(ctypes.PyDLL(str(_library(source))), f"emulate_{source.entry}")
    function.restype = ctypes.c_char_p
    return function


def _library(source: CudaSource) -> Path:
    """All entries of the file, as a shared library in the cache."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise KernelError("CUDA kernels on CPU tensors need a C++ compiler (c++, g++ or clang++) on the path")
    words = (*FLAGS, _DEFINED, *source.macros(), f"-I{HEADERS}", f"-I{source.path.parent}")
    file = (
        cache_folder() / "kernels" / "emulated" / f"{source.path.stem}-{source.text_hash(compiler, *words, _ENTRY)}.so"
    )
    text = f'#include "{source.path}"\n' + "".join(_ENTRY.format(entry=entry) for entry in source.entries())
    failed = f"{source.path.name} does not compile for the emulator"
    return shared_library(file, [compiler, *words, "-x", "c++", "-"], failed, text)
