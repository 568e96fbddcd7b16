"""Native library for tests: built if missing or stale; the skip mark of tests that need it; instruction sets of this CPU."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from octavo.kernels.native import build as builder
from octavo.kernels.native import library


@cache
def missing_because() -> str:
    """Empty if the library can be loaded, else why not."""
    with FileLock(Path(tempfile.gettempdir()) / "octavo-native-build.lock"):
        if builder.is_current():
            return ""
        try:
            builder.build()
        except builder.NoCompilerError as error:
            return str(error)
    return ""


needs_native = pytest.mark.skipif(bool(missing_because()), reason=missing_because() or "-")


def isas() -> list[str]:
    """The instruction sets whose kernels are built and run here; none without a library."""
    if missing_because():
        return []
    return [name for name in ("portable", *builder.ISAS) if library.kernel_table(name)]
