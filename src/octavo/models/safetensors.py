"""Safetensors weight source: a folder with one file, or shards named by an index, checked before anything is allocated.

The safetensors library checks each file; the bytes are read here, in chunks: no page of a file stays mapped, and no torch is
needed for bfloat16, which numpy has no type for.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from octavo.errors import ModelNotFoundError, WeightFormatError
from octavo.models.architectures import config_from_hf
from octavo.models.config import TransformerConfig

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
MAX_JSON_BYTES = 64 << 20
MAX_HEADER_BYTES = 100 << 20
CHUNK_ELEMENTS = 1 << 18  # read and widened at once: they stay in a core's own cache


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: what the file's header says, already checked against the file's size."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    offset: int  # of its first byte in the file


def read_folder_config(folder: Path) -> TransformerConfig:
    """The architecture of a model folder; raises as ``config_from_hf`` does. No torch."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelNotFoundError(f"{folder} has no config.json; expected a model folder as transformers writes it")
    return config_from_hf(_read_json(path))


class SafetensorsWeights:
    """A ``WeightSource`` over a model folder; tensors are mapped, and read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.config = read_folder_config(folder)
        self._entries: dict[str, Entry] = {}
        for file, names in _files(folder).items():
            entries = read_header(file)
            for name in names:
                if name not in entries:
                    raise WeightFormatError(f"{INDEX} puts {name} into {file.name}, which does not have it")
                self._entries[name] = entries[name]
        files = sorted({entry.file for entry in self._entries.values()})
        try:
            for file in files:
                with safe_open(file, framework="np"):
                    pass
            self._files = {file: file.open("rb") for file in files}
        except (SafetensorError, OSError) as error:
            raise WeightFormatError(f"a weight file in {folder} is not readable safetensors: {error}") from error

    def names(self) -> list[str]:
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entry(name).shape

    def get(self, name: str) -> np.ndarray:
        """A new float32 array of the tensor's shape."""
        out = np.empty(self.shape(name), dtype=np.float32)
        self.read_into(name, out)
        return out

    def read_into(self, name: str, out: np.ndarray) -> None:
        """Widen into ``out``, in chunks. Raises ``WeightFormatError``: another shape, or a file that became shorter."""
        entry = self._entry(name)
        if out.shape != entry.shape:
            raise WeightFormatError(f"{name} has shape {entry.shape}, expected {out.shape}")
        flat, size = out.reshape(-1), ELEMENT_BYTES[entry.dtype]
        for start in range(0, flat.size, CHUNK_ELEMENTS):
            part = flat[start : start + CHUNK_ELEMENTS]
            part[:] = _as_float32(entry.dtype, self._read(name, entry, start * size, part.size * size))
        if name.endswith("norm.weight"):
            out += np.float32(self.config.norm_weight_offset)

    def stored_type(self, name: str) -> str:
        """The header's word: F32, BF16, F16, ..."""
        return self._entry(name).dtype

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """``uint8 [stop - start, bytes of a row]``, as stored; safe to call from several threads."""
        entry = self._entry(name)
        row_bytes = ELEMENT_BYTES[entry.dtype] * math.prod(entry.shape[1:])
        rows = self._read(name, entry, start * row_bytes, (stop - start) * row_bytes)
        return rows.reshape(stop - start, row_bytes)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _read(self, name: str, entry: Entry, start: int, num_bytes: int) -> np.ndarray:
        data = os.pread(self._files[entry.file].fileno(), num_bytes, entry.offset + start)
        if len(data) != num_bytes:
            raise WeightFormatError(f"{entry.file.name} became shorter while {name} was read")
        return np.frombuffer(data, np.uint8)

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise WeightFormatError(f"the model folder has no tensor {name}")
        return self._entries[name]


def _as_float32(dtype: str, data: np.ndarray) -> np.ndarray:
    """The bytes of elements of a type as the same numbers in float32; bfloat16 is a float32's upper half."""
    if dtype == "BF16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.view({"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32, copy=False)


def _files(folder: Path) -> dict[Path, list[str]]:
    """Weight files of a folder with the tensors to take from each."""
    if (folder / SINGLE).is_file():
        return {folder / SINGLE: list(read_header(folder / SINGLE))}
    if not (folder / INDEX).is_file():
        raise ModelNotFoundError(f"{folder} has neither {SINGLE} nor {INDEX}; pickled weights (.bin) are never read")
    weight_map = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightFormatError(f"{INDEX} has no weight_map")
    files: dict[Path, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
            raise WeightFormatError(f"{INDEX} puts {name} into {shard!r}; expected a file name inside the folder")
        files.setdefault(folder / shard, []).append(name)
    if missing := [file.name for file in files if not file.is_file()]:
        raise WeightFormatError(
            f"{INDEX} names {missing[0]}, which is not there; {len(missing)} of {len(files)} missing"
        )
    return files


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise WeightFormatError(f"{path.name} is larger than {MAX_JSON_BYTES} bytes; expected a small JSON file")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightFormatError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightFormatError(f"{path.name} holds a {type(value).__name__}; expected an object")
    return value


def read_header(file: Path) -> dict[str, Entry]:
    """Names, shapes and types of a safetensors file, checked against the file's own size.

    Layout: 8 bytes little-endian header length, a JSON header, then the data. Raises ``WeightFormatError``.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise WeightFormatError(f"{file.name} has {size} bytes, its header claims {length}: truncated or corrupt")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError) as error:
            raise WeightFormatError(f"the header of {file.name} is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise WeightFormatError(f"the header of {file.name} is not an object")
    data_bytes = size - 8 - length
    return {name: _entry(file, name, raw, size, data_bytes) for name, raw in header.items() if name != "__metadata__"}


def _entry(file: Path, name: str, raw: Any, file_bytes: int, data_bytes: int) -> Entry:
    match raw:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise WeightFormatError(f"{name} in {file.name}: the header lacks dtype, shape or data_offsets")
    if dtype not in ELEMENT_BYTES:
        raise WeightFormatError(f"{name} in {file.name} has type {dtype}; expected {', '.join(ELEMENT_BYTES)}")
    if not all(isinstance(n, int) and 0 <= n < 1 << 40 for n in shape):
        raise WeightFormatError(f"{name} in {file.name} has shape {shape}; expected sizes")
    num_bytes = ELEMENT_BYTES[dtype]
    for n in shape:
        num_bytes *= n
    if not 0 <= begin <= end <= data_bytes or end - begin != num_bytes:
        raise WeightFormatError(
            f"{name} in {file.name}: {dtype} {shape} needs {num_bytes} bytes, the header gives {begin}..{end} "
            f"of {data_bytes}: truncated or corrupt"
        )
    return Entry(file, tuple(shape), dtype, file_bytes - data_bytes + begin)
