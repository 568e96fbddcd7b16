"""The user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Of fetched models and built kernels: ``$OCTAVO_CACHE``, else ``$XDG_CACHE_HOME/octavo``, else ``~/.cache/octavo``."""
    if own := os.environ.get("OCTAVO_CACHE"):
        return Path(own).expanduser().absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME") or "")
    # the XDG specification: a relative path is to be ignored
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "octavo"
