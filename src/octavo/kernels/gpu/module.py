"""CUDA kernel objects: compiled at first use, loaded once per GPU, launched; emulated on CPU tensors."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from octavo.kernels.gpu import driver, emulated
from octavo.kernels.gpu.ahead import Resources, resources
from octavo.kernels.gpu.nvrtc import CudaSource, cubin

Grid = tuple[int, int, int]


class Kernel:
    """``kernel.launch(device, grid, *arguments)``; one object per variant, made by a cached function of its back end."""

    def __init__(self, source: CudaSource) -> None:
        self.source = source
        self._struct = struct.Struct("@" + source.parameters.replace("T", f"{driver.TENSOR_MAP_BYTES}s"))
        self._loaded: dict[int, ctypes.c_void_p] = {}

    def launch(self, device: torch.device, grid: int | Grid, *arguments: Any) -> None:
        """On ``device``'s current stream. ``arguments`` as in ``source.parameters``; a tensor stands for its address.

        The caller keeps the tensors alive, as with any launch, and launches nothing for an empty grid.
        """
        packed = (ctypes.c_char * self._struct.size)()
        self._struct.pack_into(packed, 0, *(one.data_ptr() if isinstance(one, Tensor) else one for one in arguments))
        blocks = (grid, 1, 1) if isinstance(grid, int) else grid
        if device.type == "cpu":
            emulated.launch(self.source, blocks, packed)
            return
        index: int = device.index
        function = self._loaded.get(index) or self._load(index)
        shape = driver.LaunchShape(blocks, self.source.threads, self.source.shared_bytes)
        driver.launch(function, shape, packed, index)

    def _load(self, device: int) -> ctypes.c_void_p:
        source = self.source
        function = driver.load(cubin(source, architecture(device)), source.entry, source.shared_bytes, device)
        self._loaded[device] = function  # two threads that race here load twice, which harms nobody
        return function


def tensor_map(matrix: Tensor, box: tuple[int, int]) -> bytes:
    """For a ``T`` parameter; see ``driver.tensor_map``."""
    if matrix.device.type == "cpu":
        return emulated.tensor_map(matrix, box)
    return driver.tensor_map(matrix, box)


@cache
def architecture(device: int) -> int:
    """Of GPU number ``device``: 90 for compute capability 9.0."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def num_multiprocessors(device: torch.device) -> int:
    """How many blocks run side by side, at one a multiprocessor."""
    if device.type == "cpu":
        return emulated.NUM_MULTIPROCESSORS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


@dataclass(frozen=True, slots=True)
class CudaAhead:
    """One variant of a source, to be compiled without a GPU; an entry of ``AHEAD`` (``gpu/ahead.py``)."""

    name: str
    source: CudaSource
    architectures: tuple[int, ...] = (80, 90)

    def compile(self, architecture: int) -> Mapping[str, Resources]:
        """What the entry point takes, dynamic shared memory included."""
        used = resources(cubin(self.source, architecture))[self.source.entry]
        shared = used.shared_bytes + self.source.shared_bytes
        return {self.name: Resources(used.registers, shared, used.spilled_bytes)}
