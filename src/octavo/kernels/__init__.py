"""One folder per operation. ``import octavo.kernels as K; K.rms_norm(x, w)`` calls ``torch.ops.octavo.rms_norm``.

``K.replace_in(model)`` puts them into a transformers Llama, ``K.restore(model)`` takes them out again.

Importing this room costs nothing: an operation, and torch with it, is loaded when its name is first asked for.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from octavo.kernels.registry import NAMES


class _Room(ModuleType):
    """Python binds a folder to its parent under the folder's name, where users expect the operation: so not here.

    ``from octavo.kernels.rms_norm import ...`` finds the folder as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name in NAMES:
        from octavo.kernels.library import public

        function = public(name)
    elif name in ("replace_in", "restore"):
        from octavo.kernels import replace

        function = getattr(replace, name)
    else:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; its operations: {', '.join(sorted(NAMES))}"
        )
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})


sys.modules[__name__].__class__ = _Room
