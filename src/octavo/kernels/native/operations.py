"""Kernel table of one instruction set as Python callables (``kernel_table.hpp`` for ctypes), for tests and benchmarks.

Pointers are integers (``array.ctypes.data``), references are ``ctypes.byref(struct)``.
"""

from __future__ import annotations

import ctypes as c

from octavo.kernels.native import library

_INT, _LONG, _FLOAT, _POINTER = c.c_int, c.c_int64, c.c_float, c.c_void_p
_ROWS = (
    *[_POINTER] * 4,
    *[_INT] * 3,
)  # attention shape, cache shape, layer, block table; first position, rows, kv head


class Operations(c.Structure):
    """``KernelTable``, field by field in the same order; ``kernel_table.hpp`` says what each does."""

    _fields_ = (
        ("name", c.c_char_p),
        ("linear", c.CFUNCTYPE(None, _POINTER, _POINTER, *[_INT] * 4, _POINTER)),
        ("unpack_row", c.CFUNCTYPE(None, _POINTER, _INT, _POINTER)),
        ("quantize", c.CFUNCTYPE(None, _POINTER, _INT, _POINTER, _INT)),
        ("rms_norm", c.CFUNCTYPE(None, _POINTER, _POINTER, _INT, _FLOAT, _POINTER)),
        ("rotary", c.CFUNCTYPE(None, *[_POINTER] * 3, _INT)),
        ("silu_mul", c.CFUNCTYPE(None, _POINTER, _POINTER, _INT, _POINTER)),
        ("gelu_mul", c.CFUNCTYPE(None, _POINTER, _POINTER, _INT, _POINTER)),
        ("scale", c.CFUNCTYPE(None, _POINTER, _FLOAT, _INT)),
        ("add", c.CFUNCTYPE(None, _POINTER, _POINTER, _INT)),
        ("write_kv", c.CFUNCTYPE(None, _POINTER, _POINTER, *[_INT] * 4, _POINTER, _POINTER)),
        ("attention", c.CFUNCTYPE(None, *_ROWS, _POINTER, _LONG, _POINTER, _LONG, _POINTER)),
        ("attention_scratch", c.CFUNCTYPE(c.c_size_t, _POINTER, _INT)),
        ("attention_chunk", c.CFUNCTYPE(None, *_ROWS, _INT, _POINTER, _LONG, _POINTER, _POINTER)),
        ("attention_merge", c.CFUNCTYPE(None, _POINTER, _INT, _INT, _INT, _POINTER, _POINTER, _LONG)),
        ("argmax", c.CFUNCTYPE(_INT, _POINTER, _INT)),
    )


def operations(name: str = "") -> Operations:
    """The operations for the instruction set ``name`` (empty: the best this CPU runs); ``ValueError`` if it cannot run them."""
    table = library.kernel_table(name)
    if table is None or table.value is None:
        raise ValueError(f"this CPU does not run the kernels for {name!r}: choose another instruction set, or none")
    return Operations.from_address(table.value)
