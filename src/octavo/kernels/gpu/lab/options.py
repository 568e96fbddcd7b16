"""Options of an unattended GPU run: output folder, device, time limit, operations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from octavo.kernels.registry import NAMES


@dataclass(frozen=True, slots=True)
class Options:
    """``minutes``: of each part; ``only``: operations; ``fresh``: forget what ``out`` already holds."""

    out: Path
    device: str = "cuda"
    tiny: bool = False
    minutes: float = 9.5
    only: tuple[str, ...] = NAMES
    fresh: bool = False
