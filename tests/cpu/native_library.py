"""The native library for tests: built if it is missing or older than its sources; tests that need it skip with the reason."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from octavo.kernels.native import build as builder
from octavo.kernels.native import library

KERNELS = Path(builder.__file__).parents[1]


@cache
def missing_because() -> str:
    """Empty if the library can be loaded, else why not."""
    sources = [path for ending in ("cpp", "hpp", "inc") for path in KERNELS.glob(f"**/*.{ending}")]
    newest = max(path.stat().st_mtime_ns for path in [*sources, Path(builder.__file__)])
    with FileLock(Path(tempfile.gettempdir()) / "octavo-native-build.lock"):
        if builder.LIBRARY.is_file() and builder.LIBRARY.stat().st_mtime_ns > newest:
            return ""
        try:
            builder.build()
        except RuntimeError as error:
            if "no C++ compiler" in str(error):
                return str(error)
            raise
    return ""


needs_native = pytest.mark.skipif(bool(missing_because()), reason=missing_because() or "-")


def isas() -> list[str]:
    """The instruction sets whose kernels are built and run here; none without a library."""
    if missing_because():
        return []
    return [name for name in ("portable", "avx2", "avx512") if library.table(name)]
