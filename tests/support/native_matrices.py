"""Test inputs for native linear kernels: random packed weights and quantized rows, packed with plain numpy."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from octavo.kernels.native import library, structs
from octavo.kernels.native.structs import GROUP, TILE, Format, ScaleType

KINDS = [(Format.F32, 1), (Format.BF16, 1), (Format.Q8, 1), (Format.U8, 1), (Format.U8, 2), (Format.U4, 1)]
SHAPES = [
    (1, 32, 32),
    (2, 17, 33),
    (3, 48, 95),
    (5, 100, 576),
    (7, 33, 1000),
    (8, 16, 545),
    (13, 40, 64),
    (31, 20, 31),
    (67, 50, 96),
]
LARGEST = {Format.Q8: 127, Format.U8: 63, Format.U4: 15}


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy on a cache line."""
    room = np.zeros(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclass
class Weight:
    """``w = scale * q + min``, padded: q ``[tiles * 16, groups * 32]``, scale and min ``[tiles * 16, all scales of a row]``."""

    format: Format
    n: int
    k: int
    q: np.ndarray
    scale: np.ndarray | None = None
    min: np.ndarray | None = None
    bias: np.ndarray | None = None
    scale_type: ScaleType = ScaleType.F32
    parts: list[np.ndarray] = field(default_factory=list)

    @property
    def scales_per_group(self) -> int:
        return 1 if self.scale is None else self.scale.shape[1] * GROUP // self.q.shape[1]

    def packed(self) -> structs.Matrix:
        """Valid as long as this object."""
        tiles, groups = self.q.shape[0] // TILE, self.q.shape[1] // GROUP
        if self.scale is None:
            elements = self.q.reshape(tiles, TILE, groups * GROUP).swapaxes(1, 2)
            if self.format == Format.BF16:
                elements = (elements.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        else:
            elements = self.q.reshape(tiles, TILE, groups, 8, 4).transpose(0, 2, 3, 1, 4)
            if self.format == Format.U4:
                elements = elements[:, :, 0::2] | elements[:, :, 1::2] << 4
        parts = [elements, self._numbers(self.scale), self._numbers(self.min), self.bias]
        self.parts = [aligned(part) if part is not None else np.zeros(0) for part in parts]
        pointers = [part.ctypes.data if part.size else None for part in self.parts]
        return structs.Matrix(
            self.format, self.scale_type, self.n, self.k, tiles, groups, self.scales_per_group, 0, *pointers
        )

    def _numbers(self, part: np.ndarray | None) -> np.ndarray | None:
        if part is None:
            return None
        stored = part.astype(np.float16 if self.scale_type == ScaleType.F16 else np.float32)
        return stored.reshape(part.shape[0] // TILE, TILE, part.shape[1]).swapaxes(1, 2)

    def dequantized(self) -> np.ndarray:
        """``[tiles * 16, groups * 32]``, float64, exact."""
        if self.scale is None:
            return self.q.astype(np.float64)
        width = GROUP // self.scales_per_group
        wide = np.repeat(self.scale.astype(np.float64), width, axis=1) * self.q
        return wide if self.min is None else wide + np.repeat(self.min.astype(np.float64), width, axis=1)


def random_weight(
    rng: np.random.Generator,
    kind: Format,
    n: int,
    k: int,
    scales_per_group: int = 1,
    scale_type: ScaleType = ScaleType.F32,
) -> Weight:
    """Padding of K is zeros in q; scales, mins and everything of the padding of N are random, as nothing may depend on them."""
    rows, columns = -(-n // TILE) * TILE, -(-k // GROUP) * GROUP
    if kind in (Format.F32, Format.BF16):
        q = rng.standard_normal((rows, columns), np.float32)
        if kind == Format.BF16:
            q = (q.view(np.uint32) & 0xFFFF0000).view(np.float32)
        q[:, k:] = 0
        return Weight(kind, n, k, q)
    most = LARGEST[kind]
    q = rng.integers(-128 if kind == Format.Q8 else 0, most + 1, (rows, columns)).astype(
        np.int8 if kind == Format.Q8 else np.uint8
    )
    q[:, k:] = 0
    shape, stored = (
        (rows, columns // GROUP * scales_per_group),
        np.float16 if scale_type == ScaleType.F16 else np.float32,
    )
    scale = (rng.standard_normal(shape) / most).astype(stored).astype(np.float32)
    low = None if kind == Format.Q8 else rng.standard_normal(shape).astype(stored).astype(np.float32)
    return Weight(kind, n, k, q, scale, low, scale_type=scale_type)


class Rows:
    """Room for the quantized rows of ``[T, k]``; poisoned until written."""

    def __init__(self, num_rows: int, k: int) -> None:
        groups = -(-k // GROUP)
        self.k = k
        self.q = aligned(np.full((num_rows, groups * GROUP), -128, np.int8))
        self.scales, self.sums = (aligned(np.full((num_rows, groups), np.nan, np.float32)) for _ in range(2))
        self.sums_of_16 = aligned(np.full((num_rows, groups * 2), np.nan, np.float32))
        self.floats = aligned(np.full((num_rows, groups * GROUP), np.nan, np.float32))
        self.offsets = aligned(np.full((num_rows, groups), 1 << 30, np.int32))
        arrays = {name: getattr(self, name) for name in ("q", "scales", "sums", "sums_of_16", "offsets", "floats")}
        self.struct = structs.Activations(**{name: a.ctypes.data for name, a in arrays.items()}, groups=groups)

    def dequantized(self) -> np.ndarray:
        return np.repeat(self.scales.astype(np.float64), GROUP, axis=1) * self.q


def quantized(table: Any, x: np.ndarray) -> Rows:
    rows = Rows(*x.shape)
    x = np.ascontiguousarray(x, np.float32)
    for i in range(len(x)):
        pointer = c.c_void_p(x[i].ctypes.data)
        library.load().octavo_quantize(table, pointer, c.c_int(x.shape[1]), c.byref(rows.struct), c.c_int(i))
    return rows


def product(
    table: Any,
    weight: Weight,
    rows: Rows,
    row_range: tuple[int, int] | None = None,
    tile_range: tuple[int, int] | None = None,
    onto: np.ndarray | None = None,
) -> np.ndarray:
    """``[rows, tiles * 16]``; ``onto``: accumulate there."""
    first, last = row_range or (0, len(rows.q))
    first_tile, last_tile = tile_range or (0, len(weight.q) // TILE)
    size = (last_tile - first_tile) * TILE
    out = np.full(
        (last - first + 1, size + 8), np.nan, np.float32
    )  # what must stay NaN: a row below, columns to the right
    if onto is not None:
        out[: last - first, :size] = onto
    output = structs.Output(out.ctypes.data, out.shape[1], onto is not None)
    numbers = (c.c_int32 * 4)(first, last, first_tile, last_tile)
    packed = weight.packed()
    library.load().octavo_linear(table, c.byref(packed), c.byref(rows.struct), numbers, c.byref(output))
    assert np.isnan(out[-1]).all() and np.isnan(out[:, size:]).all(), "written beyond the output"
    return out[: last - first, :size]


def assert_close(got: np.ndarray, weight: Weight, rows: Rows, onto: np.ndarray | float = 0.0) -> None:
    """Within what float32 additions of as many terms may lose."""
    x = rows.floats.astype(np.float64) if weight.scale is None else rows.dequantized()
    w = weight.dequantized()
    # A min meets a group's rounded sum: the terms that are added are as large as |scale * q| and |min| apart.
    spread = (
        np.abs(w)
        if weight.min is None
        else np.abs(w) + 2 * np.repeat(np.abs(weight.min), GROUP // weight.scales_per_group, axis=1)
    )
    bias = 0.0 if weight.bias is None else weight.bias.astype(np.float64)
    expected = x @ w.T + bias + onto
    largest = np.abs(x) @ spread.T + np.abs(bias) + np.abs(onto)
    num_terms = x.shape[1] if weight.scale is None else 2 * x.shape[1] // GROUP * weight.scales_per_group
    error = np.abs(got - expected)
    assert (error <= (num_terms + 8) * 2.0**-24 * largest).all(), (error / largest).max()
