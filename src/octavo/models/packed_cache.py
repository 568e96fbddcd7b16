"""On-disk cache of packed models: a second start maps a file instead of packing again.

    <cache>/packed/<key>.octavo   preamble and header, then at a multiple of 2 MiB the model's memory as it is
    <cache>/packed/.part-*        a write under way; an interrupted one is removed by the next
    <cache>/packed/.lock-?        held while packing (? is the key's first digit): a second process waits, then maps that file

The four most recently used files stay; older ones are removed after a new one was written.

**The key** names content without reading gigabytes of it: SHA-256 over this format's version, the kernels' sources (which define
the layouts), the options, and of every model file its name, size, inode, times of modification and of status change to the
nanosecond, and a sample of its bytes. The status change time is what makes that safe: unlike the modification time, no program
can set it back, so a file that was rewritten or replaced has another one. A touched or copied file costs one more packing, never
wrong weights.

**A file that is not right is removed and made again**: the preamble holds the header's SHA-256, the header must describe
exactly the memory that its config needs, and the memory has a checksum that is compared at every start. Files appear under their
name by an atomic rename and are never changed after it, so a mapping stays whole even when its file is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from octavo.kernels.native.build import source_hash
from octavo.kernels.native.matrix import MatrixSpec
from octavo.models.config import TransformerConfig
from octavo.models.packed import PackedModel, PackedTensor, assemble_packed, lay_out
from octavo.models.packed_memory import LARGE_PAGE, checksum, in_large_pages

VERSION = 2  # grows with every change of this format or of the Python side of packing
MAGIC = b"OCTAVOPK"
KEEP_FILES = 4
MIN_BYTES = 4 << 20  # smaller models are packed as fast as they are found, and would only push others out
SPARE_BYTES = 1 << 30  # disk space to leave free
LOCK_WAIT_S = 600.0  # then pack without the cache
MAX_HEADER_BYTES = 16 << 20
WRITE_BYTES = 8 << 20  # at once: the page cache then keeps the file in large pages, where the file system can
SAMPLE_BYTES, NUM_SAMPLES = 4096, 32

_PREAMBLE = struct.Struct("<8sIIQ32s")  # magic, version, bytes of the header, offset of the data, SHA-256 of the header
_log = logging.getLogger(__name__)


class Origin(msgspec.Struct, frozen=True):
    """Which model, packed how."""

    key: str
    source: str
    options: str


class Header(msgspec.Struct, frozen=True):
    """What the memory holds, and for those who look into the folder: of which model, with which options."""

    key: str
    source: str
    options: str
    config: TransformerConfig
    tensors: tuple[PackedTensor, ...]
    data_bytes: int
    checksum: int


class KeptFile(msgspec.Struct, frozen=True):
    """One file of the cache."""

    path: Path
    size_bytes: int
    used_s: float  # when it was last written or mapped, in seconds since 1970
    source: str = ""  # the model that was packed, and how; both empty if the file is damaged or another version's
    options: str = ""


class _NotRightError(Exception):
    """A cache file is corrupt, truncated, or another version's; says why."""


def cached(path: Path, options: str, folder: Path, pack: Callable[[], PackedModel]) -> PackedModel:
    """The packed model of ``path``: mapped if it is here, else from ``pack``, and kept in ``folder`` if that is possible.

    ``path``: a GGUF file or a model folder. Nothing that is wrong with the cache is an error; what ``pack`` raises goes through.
    """
    with ExitStack() as held:
        try:
            key = model_key(path, options)
            file = folder / f"{key}.octavo"
            if found := _try_read(file, key):
                return found
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(folder / f".lock-{key[0]}", timeout=LOCK_WAIT_S))
            if found := _try_read(file, key):  # another process packed it while we waited
                return found
        except (OSError, Timeout) as error:
            _log.warning("packing without the cache in %s: %s", folder, error)
            return pack()
        model = pack()
        try:
            if model.weight_bytes < MIN_BYTES:
                return model
            if model_key(path, options) == key:
                _store(model, file, Origin(key, str(path.absolute()), options))
                _clean_up(folder)
            else:
                _log.warning("%s changed while it was packed: the result is not kept", path)
        except OSError as error:
            _log.warning("the packed model cannot be kept in %s: %s", folder, error)
        return model


def kept_files(folder: Path) -> list[KeptFile]:
    """What the cache in ``folder`` holds, the last used first. Damaged files are listed too, and left where they are."""
    found = []
    for path in folder.glob("*.octavo"):
        try:
            stat = path.stat()
            facts = KeptFile(path, stat.st_size, stat.st_mtime)
            with path.open("rb") as stream:
                header, _ = _read_header(stream.read(_PREAMBLE.size + MAX_HEADER_BYTES), path.stem)
            facts = msgspec.structs.replace(facts, source=header.source, options=header.options)
        except FileNotFoundError:  # just removed by another process
            continue
        except (OSError, _NotRightError):
            pass
        found.append(facts)
    return sorted(found, key=lambda file: -file.used_s)


def clear(folder: Path) -> int:
    """Remove every file of the cache, interrupted writes included; the bytes they took. Who has mapped one keeps it."""
    freed = 0
    for path in (*folder.glob("*.octavo"), *folder.glob(".part-*")):
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


def model_key(path: Path, options: str) -> str:
    """Names what packing ``path`` with ``options`` gives; 64 hex digits."""
    digest = hashlib.sha256(f"octavo packed {VERSION} {source_hash()} {options}".encode())
    files = (
        [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in (".safetensors", ".json"))
    )
    for file in files:
        with file.open("rb") as stream:
            stat = os.fstat(stream.fileno())
            facts = (file.name, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
            digest.update(repr(facts).encode())
            for index in range(NUM_SAMPLES):
                stream.seek(max(0, stat.st_size - SAMPLE_BYTES) * index // (NUM_SAMPLES - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _try_read(file: Path, key: str) -> PackedModel | None:
    """None if there is no file, or it is not right; then it is gone afterwards."""
    try:
        return _read(file, key)
    except FileNotFoundError:
        return None
    except _NotRightError as error:
        _log.warning("%s is removed and made again: %s", file, error)
        file.unlink(missing_ok=True)
        return None


def _read(file: Path, key: str) -> PackedModel:
    with file.open("rb") as stream:
        header, data_offset = _read_header(stream.read(_PREAMBLE.size + MAX_HEADER_BYTES), key)
        if data_offset + header.data_bytes != os.fstat(stream.fileno()).st_size:
            raise _NotRightError(f"it needs {data_offset + header.data_bytes} bytes and has another size")
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(mapping, np.uint8)[data_offset:]
    if checksum(memory) != header.checksum:
        raise _NotRightError("its data has another checksum than when it was written")
    os.utime(file)  # for the order in which files are removed
    return assemble_packed(header.config, header.tensors, in_large_pages(memory))


def _read_header(start: bytes, key: str) -> tuple[Header, int]:
    """From a file's first bytes: the checked header, and where the data begin."""
    if len(start) < _PREAMBLE.size:
        raise _NotRightError("it ends within its preamble")
    magic, version, header_bytes, data_offset, digest = _PREAMBLE.unpack_from(start)
    if magic != MAGIC or version != VERSION:
        raise _NotRightError(f"it begins with {magic!r} version {version}, not {MAGIC!r} version {VERSION}")
    raw = start[_PREAMBLE.size : _PREAMBLE.size + header_bytes]
    if len(raw) != header_bytes or hashlib.sha256(raw).digest() != digest:
        raise _NotRightError("its header has another checksum than when it was written")
    if data_offset % LARGE_PAGE or data_offset < _PREAMBLE.size + header_bytes:
        raise _NotRightError(f"its data begin at {data_offset}")
    try:
        header = msgspec.msgpack.decode(raw, type=Header)
    except msgspec.MsgspecError as error:
        raise _NotRightError(f"its header is not readable: {error}") from None
    _check(header, key)
    return header, data_offset


def _check(header: Header, key: str) -> None:
    """The tensors must be exactly those of the config, one after the other: then each lies inside the data."""
    specs = {tensor.name: tensor.matrix for tensor in header.tensors}

    def spec_of(name: str, shape: tuple[int, ...], has_bias: bool) -> MatrixSpec:
        spec = specs.get(name)
        if (
            spec is None
            or (spec.n, spec.k) != shape
            or spec.has_bias != has_bias
            or spec.scales_per_group not in (1, 2)
        ):
            raise _NotRightError(f"its {name} is {spec}, its config asks for {shape}")
        return spec

    tensors = lay_out(header.config, spec_of)
    if (
        header.key != key
        or header.tensors != tensors
        or header.data_bytes != tensors[-1].offset + tensors[-1].num_bytes
    ):
        raise _NotRightError("its header contradicts itself or the file's name")


def _store(model: PackedModel, file: Path, origin: Origin) -> None:
    """Write beside it, then rename. Raises ``OSError``; then nothing is left. The caller holds the lock."""
    for leftover in file.parent.glob(
        f".part-{origin.key[0]}-*"
    ):  # of an interrupted write: we hold the lock, nobody uses it
        leftover.unlink(missing_ok=True)
    if (free := shutil.disk_usage(file.parent).free) < model.weight_bytes + SPARE_BYTES:
        raise OSError(f"{free >> 20} MiB are free, {model.weight_bytes + SPARE_BYTES >> 20} MiB are needed")
    data = (model.config, model.tensors, model.weight_bytes, checksum(model.memory))
    header = Header(origin.key, origin.source, origin.options, *data)
    raw = msgspec.msgpack.encode(header)
    if len(raw) > MAX_HEADER_BYTES:
        raise OSError(f"its header has {len(raw)} bytes, at most {MAX_HEADER_BYTES} are possible")
    data_offset = -(-(_PREAMBLE.size + len(raw)) // LARGE_PAGE) * LARGE_PAGE
    descriptor, part = tempfile.mkstemp(prefix=f".part-{origin.key[0]}-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as out:
            out.write(_PREAMBLE.pack(MAGIC, VERSION, len(raw), data_offset, hashlib.sha256(raw).digest()) + raw)
            out.seek(data_offset)
            view = model.memory.data
            while view:
                view = view[out.write(view[:WRITE_BYTES]) :]
        Path(part).replace(file)  # not synced: after a power cut the checksum finds what is missing
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _clean_up(folder: Path) -> None:
    """Remove all but the most recently used. Processes that mapped a removed file keep their mapping."""
    newest_first = sorted(folder.glob("*.octavo"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in newest_first[KEEP_FILES:]:
        file.unlink(missing_ok=True)
