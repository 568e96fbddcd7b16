"""Environments of installed packages: processes in which some packages cannot be found, wheels built and unpacked."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKER = Path(__file__).with_name("missing_packages")
OPTIONAL = ("torch", "triton", "transformers", "scipy", "matplotlib", "pyarrow")


def without(*packages: str, source: Path = ROOT / "src", **more: str) -> dict[str, str]:
    """The environment of a process, and of its children, in which octavo comes from ``source`` and ``packages`` are missing."""
    path = os.pathsep.join((str(BLOCKER), str(source)))
    return {**os.environ, "PYTHONPATH": path, "OCTAVO_TEST_MISSING": ",".join(packages), **more}
