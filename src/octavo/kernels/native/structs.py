"""The structs of ``types.hpp`` and ``table.hpp`` for ctypes, field by field in the same order."""

from __future__ import annotations

import ctypes as c
import enum

TILE, GROUP, SUB = 16, 32, 16


class Format(enum.IntEnum):
    """How a packed matrix stores its elements; see ``types.hpp``."""

    F32 = 0
    BF16 = 1
    Q8 = 2
    U8 = 3
    U4 = 4


class ScaleType(enum.IntEnum):
    """Of a packed matrix' scales and mins."""

    F16 = 0
    F32 = 1


class Matrix(c.Structure):
    """A packed weight ``[n, k]``; the memory behind it is borrowed."""

    _fields_ = (
        ("format", c.c_int32),
        ("scale_type", c.c_int32),
        ("n", c.c_int32),
        ("k", c.c_int32),
        ("num_tiles", c.c_int32),
        ("num_groups", c.c_int32),
        ("halves", c.c_int32),
        ("unused", c.c_int32),
        ("elements", c.c_void_p),
        ("scales", c.c_void_p),
        ("mins", c.c_void_p),
        ("bias", c.c_void_p),
    )


class Activations(c.Structure):
    """Rows as a matrix product takes them; the memory behind it is borrowed."""

    _fields_ = (
        ("q", c.c_void_p),
        ("scales", c.c_void_p),
        ("sums", c.c_void_p),
        ("half_sums", c.c_void_p),
        ("floats", c.c_void_p),
        ("groups", c.c_int32),
    )


class Output(c.Structure):
    """Where a product goes; ``stride`` in floats."""

    _fields_ = (("to", c.c_void_p), ("stride", c.c_int64), ("accumulate", c.c_bool))
