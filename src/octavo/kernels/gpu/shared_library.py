"""C++ shared libraries compiled on demand and kept in the cache: emulated CUDA kernels, baselines."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from octavo.errors import KernelError


def shared_library(file: Path, words: Sequence[str], failed: str, text: str = "") -> Path:
    """``file``; if it is not there, what ``words`` (a compiler, flags, the program's path, or ``-`` for ``text``) make of it.

    ``KernelError`` that begins with ``failed`` and goes on with the compiler's words. Two processes at once do no harm.
    """
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / "made.so"
        done = subprocess.run([*words, "-o", str(made)], input=text, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise KernelError(f"{failed}:\n{done.stderr}")
        made.replace(file)
    return file
