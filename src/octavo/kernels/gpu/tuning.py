"""Which tile sizes, on this GPU, for this shape? Measured answers ship as data; a GPU without them uses the default.

``kernels/<op>/tuned.json`` holds ``{GPU name: {key: configuration}}``; ``octavo kernels tune`` writes the same form into
this user's cache folder, which comes first. Nothing is ever timed inside a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from octavo.folders import cache_folder


@dataclass(frozen=True, slots=True)
class Config:
    """``tiles``: the kernel's constexpr arguments by name."""

    tiles: tuple[tuple[str, int], ...]
    num_warps: int = 4
    num_stages: int = 3

    @staticmethod
    def of(num_warps: int = 4, num_stages: int = 3, **tiles: int) -> Config:
        return Config(tuple(tiles.items()), num_warps, num_stages)

    def launch(self) -> dict[str, Any]:
        """As keyword arguments of a Triton launch."""
        return {**dict(self.tiles), "num_warps": self.num_warps, "num_stages": self.num_stages}


def choose(op: str, key: str, default: Config) -> Config:
    """The tuned configuration for ``key`` (the op's own words for a class of shapes) on this GPU, else ``default``."""
    return _tuned(op, _gpu_name()).get(key, default)


@cache
def _gpu_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


@cache
def _tuned(op: str, gpu: str) -> Mapping[str, Config]:
    found: dict[str, Config] = {}
    for file in (Path(__file__).parent.parent / op / "tuned.json", user_file(op)):
        if file.exists():
            found |= {key: read(one) for key, one in json.loads(file.read_text()).get(gpu, {}).items()}
    return found


def user_file(op: str) -> Path:
    """Where ``octavo kernels tune`` keeps what it found on this machine."""
    return cache_folder() / "kernels" / "tuned" / f"{op}.json"


def read(value: Mapping[str, Any]) -> Config:
    """``{"tiles": {...}, "num_warps": 4, "num_stages": 3}``, as it stands in the files."""
    return Config(tuple(value["tiles"].items()), value["num_warps"], value["num_stages"])


def write(config: Config) -> dict[str, Any]:
    """The inverse of ``read``."""
    return {"tiles": dict(config.tiles), "num_warps": config.num_warps, "num_stages": config.num_stages}
