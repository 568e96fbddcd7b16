"""Optional packages: which extra of the installation brings each, and the one-line refusal where one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import MappingProxyType

from octavo.errors import MissingPackageError

EXTRA_OF: Mapping[str, str] = MappingProxyType(
    {"torch": "torch", "scipy": "bench", "matplotlib": "bench", "pyarrow": "bench", "triton": "gpu"}
)


def is_installed(package: str) -> bool:
    """Whether ``package`` can be found; it is not imported."""
    return importlib.util.find_spec(package) is not None


def require(package: str, who_needs: str) -> None:
    """Raises ``MissingPackageError`` where ``package`` is not installed. ``who_needs``: "the torch executors need"."""
    if not is_installed(package):
        raise missing(package, who_needs)


def missing(package: str, who_needs: str) -> MissingPackageError:
    """The error that says who needs ``package`` and how it is installed."""
    return MissingPackageError(f"{who_needs} {package}: pip install 'octavo[{EXTRA_OF[package]}]'", param=package)
