"""Triton's interpreter for machines without a GPU: its switch, and a fix for numpy 2.4."""

from __future__ import annotations

import importlib.util
import os
from typing import Any


def use_interpreter() -> None:
    """Run Triton's kernels in the interpreter, where Triton is installed. To be called before a module with kernels is imported.

    Triton 3.6 makes a loop's bounds integers with ``int(array of one element)``, which numpy 2.4 refuses.
    """
    os.environ.setdefault("TRITON_INTERPRET", "1")
    if importlib.util.find_spec("triton") is None:
        return
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor
    if getattr(patch, "mended", False):
        return

    def mended(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    mended.mended = True  # type: ignore[attr-defined]
    interpreter._patch_lang_tensor = mended
