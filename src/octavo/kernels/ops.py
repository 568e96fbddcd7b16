"""The operations, by name: ``import octavo.kernels.ops as K; K.rms_norm(x, weight)`` runs the back end of ``x``'s device.

Users and our own models call the same functions. Importing this module costs nothing: torch and an operation's folder are
loaded when the name is first asked for.
"""

from __future__ import annotations

from typing import Any

from octavo.kernels.registry import NAMES


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; its operations: {', '.join(sorted(NAMES))}"
        )
    from octavo.kernels.library import public

    globals()[name] = function = public(name)
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})
