"""The shared library of native CPU kernels, loaded with ctypes: is it there, and what can this CPU run?"""

from __future__ import annotations

import ctypes as c
from functools import cache
from pathlib import Path

ABI_VERSION = 2
LIBRARY = Path(__file__).with_name("liboctavo.so")


@cache
def load() -> c.CDLL:
    """The library. Raises ``OSError`` with the reason if it was not built, or is of another version."""
    library = c.CDLL(str(LIBRARY))
    if (found := library.octavo_abi_version()) != ABI_VERSION:
        raise OSError(f"{LIBRARY} has version {found} of the interface, expected {ABI_VERSION}: build it again")
    library.octavo_table.restype = c.c_void_p
    library.octavo_table.argtypes = [c.c_char_p]
    library.octavo_table_name.restype = c.c_char_p
    library.octavo_table_name.argtypes = [c.c_void_p]
    library.octavo_session_new.restype = c.c_void_p
    library.octavo_session_new.argtypes = [c.c_void_p, c.c_void_p, c.c_int, c.c_int, c.c_int]
    library.octavo_session_delete.argtypes = [c.c_void_p]
    library.octavo_step.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p]
    library.octavo_sample.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p, c.c_int, c.c_void_p]
    return library


def best_isa() -> str:
    """The instruction set whose operations this CPU would run; empty if the library cannot be loaded."""
    try:
        found = table()
    except OSError:
        return ""
    return load().octavo_table_name(found).decode() if found else ""


def table(name: str = "") -> c.c_void_p | None:
    """The operations for the instruction set ``name`` (empty: the best this CPU runs); None if it cannot run them."""
    found = load().octavo_table(name.encode())
    return c.c_void_p(found) if found else None
