"""Packed weight matrices: format and size, memory, packing from the bytes of a model file, checksum."""

from __future__ import annotations

import ctypes as c
import math
from typing import NamedTuple

import msgspec
import numpy as np

from octavo.errors import UnsupportedModelError, WeightFormatError
from octavo.gguf.header import TENSOR_TYPES
from octavo.kernels.native import structs
from octavo.kernels.native.library import load
from octavo.kernels.native.structs import GROUP, TILE, Format, ScaleType

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
TYPE_IDS = {name: type_id for type_id, (name, _, _) in TENSOR_TYPES.items()}
# How a block type is packed without losing a bit, and how many scales 32 of its elements have.
BLOCK_FORMATS: dict[str, tuple[Format, int]] = {
    "Q4_0": (Format.U4, 1),
    "Q4_1": (Format.U4, 1),
    "Q4_K": (Format.U4, 1),
    "Q5_0": (Format.U8, 1),
    "Q5_1": (Format.U8, 1),
    "Q5_K": (Format.U8, 1),
    "Q6_K": (Format.U8, 2),
    "Q8_0": (Format.Q8, 1),
}
# Their scales are products of a float16 and an integer, which float16 cannot hold; those of the other block types are float16.
PRODUCT_SCALES = frozenset({"Q4_K", "Q5_K", "Q6_K"})
FLOAT_FORMATS = {"F32": Format.F32, "F16": Format.F32, "BF16": Format.BF16}


class ScaleRangeError(WeightFormatError):
    """A scale or min is not representable in float16: pack into a matrix with float32 scales."""


class PartSizes(NamedTuple):
    """Bytes of each part of a packed matrix; 0 for one that it does not have."""

    elements: int
    scales: int
    mins: int
    bias: int


class MatrixParts(NamedTuple):
    """The parts of a packed matrix' memory, ``uint8``; empty for one that it does not have."""

    elements: np.ndarray
    scales: np.ndarray
    mins: np.ndarray
    bias: np.ndarray


class MatrixSpec(msgspec.Struct, frozen=True):
    """What a packed matrix is, without its memory; ``n`` outputs, ``k`` inputs."""

    format: Format
    scale_type: ScaleType
    n: int
    k: int
    scales_per_group: int = 1
    has_bias: bool = False

    @property
    def num_tiles(self) -> int:
        """Tiles of ``TILE`` rows of the weight; the last may be padded."""
        return -(-self.n // TILE)

    @property
    def num_groups(self) -> int:
        """Groups of ``GROUP`` inputs; the last may be padded."""
        return -(-self.k // GROUP)

    @property
    def part_sizes(self) -> PartSizes:
        """Bytes of each part, tiles and groups padded to whole ones."""
        groups = self.num_tiles * self.num_groups
        elements = groups * GROUP * TILE * {Format.F32: 8, Format.BF16: 4, Format.U4: 1}.get(self.format, 2) // 2
        quantized, has_min = self.format not in (Format.F32, Format.BF16), self.format in (Format.U8, Format.U4)
        scales = groups * TILE * self.scales_per_group * (2 if self.scale_type == ScaleType.F16 else 4) * quantized
        return PartSizes(elements, scales, scales * has_min, self.num_tiles * TILE * 4 * self.has_bias)

    @property
    def num_bytes(self) -> int:
        """With every part on a multiple of ``ALIGNMENT``."""
        return sum(map(aligned, self.part_sizes))


def aligned(num_bytes: int) -> int:
    """Rounded up to a multiple of ``ALIGNMENT``."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def stored_spec(type_name: str, n: int, k: int, *, wide_scales: bool = False) -> MatrixSpec:
    """The packed format of a tensor of a file's type, lossless. Raises ``UnsupportedModelError``: there is no such way."""
    if type_name in FLOAT_FORMATS:
        return MatrixSpec(FLOAT_FORMATS[type_name], ScaleType.F32, n, k)
    if type_name not in BLOCK_FORMATS:
        raise UnsupportedModelError(f"the native CPU kernels have no format for weights of type {type_name}")
    packed, scales_per_group = BLOCK_FORMATS[type_name]
    wide = wide_scales or type_name in PRODUCT_SCALES
    return MatrixSpec(packed, ScaleType.F32 if wide else ScaleType.F16, n, k, scales_per_group)


class PackedMatrix:
    """A packed weight over borrowed or own memory: ``uint8 [spec.num_bytes]``, aligned to ``ALIGNMENT``."""

    __slots__ = ("memory", "parts", "spec", "struct")

    def __init__(self, spec: MatrixSpec, memory: np.ndarray | None = None) -> None:
        if memory is None:
            room = np.zeros(spec.num_bytes + ALIGNMENT, np.uint8)
            start = -room.ctypes.data % ALIGNMENT
            memory = room[start : start + spec.num_bytes]
        address = memory.ctypes.data
        if memory.dtype != np.uint8 or memory.shape != (spec.num_bytes,) or address % ALIGNMENT:
            raise ValueError(f"a packed matrix needs {spec.num_bytes} bytes aligned to {ALIGNMENT}, got {memory.shape}")
        self.spec, self.memory = spec, memory
        parts, pointers = [], []
        start = 0
        for size in spec.part_sizes:
            parts.append(memory[start : start + size])
            pointers.append(address + start if size else None)
            start += aligned(size)
        self.parts = MatrixParts(*parts)
        sizes = (spec.n, spec.k, spec.num_tiles, spec.num_groups, spec.scales_per_group, 0)
        self.struct = structs.Matrix(spec.format, spec.scale_type, *sizes, *pointers)

    def set_bias(self, bias: np.ndarray) -> None:
        """``[n]``; the padding becomes zero."""
        room = self.parts.bias.view(np.float32)
        room[: self.spec.n] = bias
        room[self.spec.n :] = 0

    def pack(self, type_name: str, rows: np.ndarray, first_tile: int = 0, last_tile: int | None = None) -> None:
        """Fill tiles ``[first_tile, last_tile)`` from the stored bytes of exactly their rows; safe in several threads.

        Float rows are quantized if the matrix is of a quantized format. Raises ``WeightFormatError`` for a scale or weight that
        is not finite, ``ScaleRangeError``, and ``ValueError`` for bytes that do not fit the matrix.
        """
        last = self.spec.num_tiles if last_tile is None else last_tile
        rows = np.ascontiguousarray(rows)
        pointer = c.c_void_p(rows.ctypes.data)
        words = c.c_int(TYPE_IDS[type_name]), pointer, c.c_int64(rows.nbytes), c.c_int(first_tile), c.c_int(last)
        result = load().octavo_pack(*words, c.byref(self.struct))
        if result == 3:
            raise WeightFormatError("it holds values that are not finite: the file is corrupt")
        if result == 4:
            raise ScaleRangeError("a scale is beyond float16")
        if result:
            raise ValueError(f"{rows.nbytes} bytes of {type_name} are not tiles {first_tile}..{last} of {self.spec}")


def rows_of_tiles(spec: MatrixSpec, first_tile: int, last_tile: int) -> tuple[int, int]:
    """The rows of the weight that tiles ``[first_tile, last_tile)`` hold."""
    return first_tile * TILE, min(spec.n, last_tile * TILE)


def tile_chunks(spec: MatrixSpec, row_bytes: int, chunk_bytes: int) -> list[tuple[int, int]]:
    """Ranges of tiles whose stored rows are about ``chunk_bytes`` each."""
    step = max(1, math.floor(chunk_bytes / (row_bytes * TILE)))
    return [(first, min(first + step, spec.num_tiles)) for first in range(0, spec.num_tiles, step)]


def checksum_of(memory: np.ndarray) -> int:
    """64 bits that change with any damage to a contiguous ``uint8`` array; not cryptographic. Releases the GIL."""
    function = load().octavo_checksum
    function.restype = c.c_uint64
    return int(function(c.c_void_p(memory.ctypes.data), c.c_int64(memory.nbytes)))
