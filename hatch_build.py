"""Hatchling build hook: compiles the native kernels into the wheel and names the systems that it loads on."""

from __future__ import annotations

import importlib.util
import re
import struct
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = Path("src/octavo/kernels/native/build.py")
GLIBC = ("libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")
VERSION = re.compile(r"GLIBC_(\d+)\.(\d+)")  # others, GLIBC_PRIVATE or GLIBC_ABI_DT_RELR, no tag can promise
OLDEST = (2, 17)  # manylinux2014: pip knows no older one on every architecture
NEEDED_VERSIONS = 0x6FFFFFFE  # the type of an ELF section


class NativeKernels(BuildHookInterface):  # type: ignore[type-arg,misc]
    """Runs before a wheel is put together, an editable one (`pip install -e`) included."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        build = load_by_path(Path(self.root) / BUILD)
        try:
            if not build.is_current():
                self.app.display_info("building the native kernels (some ten seconds)")
                build.build()
        except (RuntimeError, OSError) as error:
            self.app.display_warning(
                f"octavo without native kernels; torch can serve (pip install 'octavo[torch]'), see `octavo doctor`: {error}"
            )
            return
        build_data["artifacts"].append(str(build.LIBRARY.relative_to(Path(self.root).resolve())))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(build.LIBRARY, build.architecture())}"


def load_by_path(path: Path) -> ModuleType:
    """The file by itself: the package's requirements are not installed while it is built."""
    spec = importlib.util.spec_from_file_location("octavo_native_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def platform_tag(library: Path, architecture: str) -> str:
    """Where ``library`` loads: it has a C interface, so any Python 3, but one system and one architecture.

    On Linux ``manylinux_2_17_x86_64`` and the like where it needs glibc alone; the number is the newest glibc version of its
    symbols. Elsewhere this system's own tag.
    """
    name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if name.startswith("linux_"):
        needed = needed_versions(library)
        numbers = [VERSION.match(word) for words in needed.values() for word in words]
        if numbers and all(numbers) and set(needed) <= set(GLIBC):
            major, minor = max(OLDEST, *((int(found[1]), int(found[2])) for found in numbers if found))
            return f"manylinux_{major}_{minor}_{architecture}"
    # a Python for two architectures, a library for one
    return name.replace("universal2", {"aarch64": "arm64"}.get(architecture, architecture))


def needed_versions(library: Path) -> dict[str, set[str]]:
    """Library -> the versions of its symbols that a 64-bit little-endian ELF file needs; what is unversioned is not there."""
    data = library.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    found: dict[str, set[str]] = {}
    for section in sections:
        if section[1] != NEEDED_VERSIONS:
            continue
        words, at = sections[section[6]], section[4]
        for _ in range(section[7]):
            _, num_versions, file, first, after = struct.unpack_from("<HHIII", data, at)
            versions, entry = found.setdefault(_text(data, words[4] + file), set()), at + first
            for _ in range(num_versions):
                _, _, _, name, next_entry = struct.unpack_from("<IHHII", data, entry)
                versions.add(_text(data, words[4] + name))
                entry += next_entry
            at += after
    return found


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
