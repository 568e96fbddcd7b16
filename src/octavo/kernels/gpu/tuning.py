"""Tuned tile configurations by GPU and shape: measured ones ship as data, a GPU without them uses the default.

``kernels/<op>/tuned.json`` holds ``{GPU name: {key: configuration}}``; ``octavo kernels tune`` writes the same form into
this user's cache folder, which comes first. Nothing is ever timed inside a request.

A back end that can be tuned calls ``choose`` and has, beside its function, ``configs(**arguments) -> Iterable[Config]``: the
candidates for these arguments of the operation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
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
        """``tiles``: the kernel's constexpr arguments by name, in the order in which they are kept."""
        return Config(tuple(tiles.items()), num_warps, num_stages)

    def launch(self) -> dict[str, Any]:
        """As keyword arguments of a Triton launch."""
        return {**dict(self.tiles), "num_warps": self.num_warps, "num_stages": self.num_stages}


@dataclass(frozen=True, slots=True)
class _Trial:
    """Who is being tuned, with what, and what it asked for."""

    op: str
    config: Config | None
    asked: list[tuple[str, Config]]


_TRIAL: ContextVar[_Trial | None] = ContextVar("octavo_kernel_trial", default=None)


def choose(op: str, key: str, default: Config) -> Config:
    """The tuned configuration for ``key`` (the op's own words for a class of shapes) on this GPU, else ``default``."""
    trial = _TRIAL.get()
    if trial is not None and trial.op == op:
        return _tried(trial, key, default)
    return _tuned(op, _gpu_name()).get(key, default)


def _tried(trial: _Trial, key: str, default: Config) -> Config:
    """A candidate is for the kernel whose tiles it names; an operation may launch others beside it."""
    trial.asked.append((key, default))
    config = trial.config
    fits = config is not None and dict(config.tiles).keys() == dict(default.tiles).keys()
    return config if config is not None and fits else default


@contextmanager
def trial(op: str, config: Config | None = None) -> Iterator[list[tuple[str, Config]]]:
    """Inside, ``choose`` gives ``op`` the candidate ``config`` (or the default); yields the keys and defaults asked for."""
    one = _Trial(op, config, [])
    token = _TRIAL.set(one)
    try:
        yield one.asked
    finally:
        _TRIAL.reset(token)


def forget() -> None:
    """Read the files again: they have changed."""
    _tuned.cache_clear()


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
