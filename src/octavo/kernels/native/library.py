"""Loader of the native CPU kernels: finding or building the shared library, its C functions, the kernel table of this CPU."""

from __future__ import annotations

import ctypes as c
import os
import stat
from functools import cache
from pathlib import Path

from octavo.folders import cache_folder
from octavo.kernels.native import build


def find() -> Path:
    """The library built from the sources of this package: beside them, else this user's own.

    Raises ``OSError`` with the reason if there is none; `octavo doctor` says what to do.
    """
    wanted, own = build.source_hash(), own_library()
    for path in (build.LIBRARY, own):
        if build.built_hash(path) == wanted:
            if path == own and not (_is_ours(own) and _is_ours(own.parent)):
                raise OSError(f"other users could have written {own}: delete it and build again")
            return path
    if build.LIBRARY.is_file():
        raise OSError(f"{build.LIBRARY} was built from other sources than these")
    raise OSError("not built")


def own_library() -> Path:
    """Where this user's library of these sources belongs if the package's folder is not theirs to write."""
    return cache_folder() / "native" / f"liboctavo-{build.source_hash()}-{build.architecture()}.so"


def make() -> Path:
    """Build the library beside its sources, or where those are read-only in this user's cache.

    Raises ``RuntimeError`` with the compiler's words, ``OSError`` if neither folder can be written.
    """
    if os.access(build.HERE, os.W_OK):
        return build.build()
    own = own_library()
    own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return build.build(own)


def _is_ours(path: Path) -> bool:
    """Code is loaded from it, so nobody but this user and the system's may have written there."""
    status = path.stat()
    return status.st_uid in (0, os.getuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@cache
def load() -> c.CDLL:
    """The library. Raises ``OSError`` with the reason if there is none for these sources."""
    library = c.CDLL(str(find()))
    library.octavo_kernel_table.restype = c.c_void_p
    library.octavo_kernel_table.argtypes = [c.c_char_p]
    library.octavo_kernel_table_name.restype = c.c_char_p
    library.octavo_kernel_table_name.argtypes = [c.c_void_p]
    library.octavo_step_state_new.restype = c.c_void_p
    library.octavo_step_state_new.argtypes = [c.c_void_p, c.c_void_p, c.c_int, c.c_int, c.c_int]
    library.octavo_step_state_delete.argtypes = [c.c_void_p]
    library.octavo_step.argtypes = [c.c_void_p, c.c_void_p, *[c.c_int] * 4, c.c_void_p]
    library.octavo_sample.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p, c.c_int, c.c_void_p]
    return library


def best_isa() -> str:
    """The instruction set whose operations this CPU would run; empty if the library cannot be loaded (``load`` says why)."""
    try:
        found = kernel_table()
    except OSError:
        return ""
    name: bytes = load().octavo_kernel_table_name(found)
    return name.decode()


def kernel_table(name: str = "") -> c.c_void_p | None:
    """The kernel table of the instruction set ``name`` (empty: the best this CPU runs); None if this CPU cannot run it."""
    found = load().octavo_kernel_table(name.encode())
    return c.c_void_p(found) if found else None
