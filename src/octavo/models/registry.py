"""Model registry: models known by name, and the lookup of a name, path or ``hf://`` reference given by a user.

A name is one of: a registry name or alias, a folder with safetensors, a ``.gguf`` file, ``hf://org/name[@revision]``, or
``fake`` (no model at all, for the fake executor).
"""

from __future__ import annotations

import difflib
import importlib.resources
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from octavo.errors import ModelNotFoundError, UnsupportedModelError
from octavo.folders import cache_folder
from octavo.models import fetch, hub
from octavo.models.wheels import Package, Progress, silent

FAKE = "fake"


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model known by name: either ``packages`` that carry one GGUF file, or a hub repository ``hf``."""

    name: str
    description: str
    licence: str
    licence_url: str
    architecture: str
    aliases: tuple[str, ...] = ()
    file: str = ""
    file_sha256: str = ""
    size_bytes: int = 0  # of the model file; 0: unknown (hub models)
    packages: tuple[Package, ...] = ()
    hf: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, in words: ``hf://org/name`` or the packages."""
        if self.hf:
            return hub.PREFIX + self.hf
        return "PyPI: " + ", ".join(f"{package.name} {package.version}" for package in self.packages)

    def fetch_spec(self) -> fetch.FetchSpec:
        """What ``fetch`` downloads and checks for it."""
        return fetch.FetchSpec(
            name=self.name,
            file=self.file,
            file_sha256=self.file_sha256,
            size_bytes=self.size_bytes,
            packages=self.packages,
        )


class ModelRegistry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All entries, in the order of the data file."""

    model: tuple[RegisteredModel, ...]

    @property
    def entries(self) -> tuple[RegisteredModel, ...]:
        """All registered models, in the order of the data file."""
        return self.model

    def find(self, name: str) -> RegisteredModel | None:
        """By name or alias, case-insensitively."""
        wanted = name.strip().lower()
        for entry in self.model:
            if wanted == entry.name or wanted in entry.aliases:
                return entry
        return None

    def nearest(self, name: str) -> list[str]:
        """At most three known names or aliases that look like ``name``."""
        names = [known for entry in self.model for known in (entry.name, *entry.aliases)]
        return difflib.get_close_matches(name.strip().lower(), names, n=3, cutoff=0.5)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that lies on this machine, ready to be loaded."""

    name: str  # what to call it in answers
    path: Path  # .gguf file, or folder with safetensors; meaningless for "fake"
    format: str  # "gguf" | "safetensors" | "fake"
    entry: RegisteredModel | None = None


def model_registry() -> ModelRegistry:
    """The model registry that ships with the package."""
    text = importlib.resources.files("octavo.models").joinpath("registry.toml").read_bytes()
    return msgspec.toml.decode(text, type=ModelRegistry)


def is_fetched(entry: RegisteredModel) -> bool:
    """Whether the model lies on this machine, complete. No network, no model bytes read."""
    if entry.hf:
        return hub.is_on_disk(hub.HubReference(entry.hf))
    return fetch.is_fetched(entry.fetch_spec(), cache_folder())


def cached_path(entry: RegisteredModel) -> Path | None:
    """Where the model file is or will be; None for hub models, which the hub's own cache keeps."""
    return None if entry.hf else fetch.cached_path(entry.fetch_spec(), cache_folder())


def find_model(
    name: str, *, progress: Progress | None = None, verify: bool = False, pip_args: Sequence[str] = ()
) -> LocalModel:
    """Find the model that ``name`` stands for, fetching it if need be.

    ``verify`` hashes a cached registered model again. Raises ``ModelNotFoundError`` (with the nearest known names),
    ``DownloadError``, ``ChecksumError``, ``UnsupportedModelError``.
    """
    report = progress or silent
    if name == FAKE:
        return LocalModel(FAKE, Path(FAKE), "fake")
    if name.startswith(hub.PREFIX):
        return _from_hub(hub.parse_reference(name), None, report)
    if entry := model_registry().find(name):
        if entry.hf:
            return _from_hub(hub.HubReference(entry.hf), entry, report)
        path = fetch.fetch(entry.fetch_spec(), cache_folder(), progress=report, pip_args=pip_args, verify=verify)
        return LocalModel(entry.name, path, "gguf", entry)
    return _from_path(name)


def _from_hub(reference: hub.HubReference, entry: RegisteredModel | None, progress: Progress) -> LocalModel:
    path = hub.fetch_from_hub(reference, progress=progress)
    name = entry.name if entry else reference.repo_id
    return LocalModel(name, path, "gguf" if reference.file else "safetensors", entry)


def _from_path(name: str) -> LocalModel:
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise UnsupportedModelError(f"{name} is not a .gguf file; give a .gguf file or a folder with safetensors")
        return LocalModel(path.stem, path.resolve(), "gguf")
    raise ModelNotFoundError(_not_found(name))


def _from_folder(path: Path) -> LocalModel:
    if hub.is_complete(path):
        return LocalModel(path.resolve().name, path.resolve(), "safetensors")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if len(files) == 1:
        return LocalModel(files[0].stem, files[0].resolve(), "gguf")
    what = (
        f"{len(files)} .gguf files: name one of them" if files else "no complete set of *.safetensors and config.json"
    )
    raise UnsupportedModelError(f"the folder {path} has {what}")


def _not_found(name: str) -> str:
    if name.lower().endswith(".gguf"):
        return f"there is no file {name}"
    message = f"no model {name!r}: not in the model registry, not a folder, not a .gguf file"
    near = model_registry().nearest(name)
    if near:
        return f"{message}; did you mean {' or '.join(near)}?"
    if name.count("/") == 1 and not name.startswith((".", "~", os.sep)):
        return f"{message}; for a hub model write {hub.PREFIX}{name}"
    return f"{message}; known: {', '.join(entry.name for entry in model_registry().entries)}"
