"""Builds the native kernels into the wheel where there is a C++ compiler; without one the wheel is pure Python."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = Path("src/octavo/kernels/native/build.py")


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
            self.app.display_warning(f"octavo without native kernels, torch will serve; see `octavo doctor`: {error}")
            return
        build_data["artifacts"].append(str(build.LIBRARY.relative_to(Path(self.root).resolve())))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(build.architecture())}"


def load_by_path(path: Path) -> ModuleType:
    """The file by itself: the package's requirements are not installed while it is built."""
    spec = importlib.util.spec_from_file_location("octavo_native_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def platform_tag(architecture: str) -> str:
    """Where the library loads: it has a C interface, so any Python 3, but one system and one architecture."""
    name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return name.replace(
        "universal2", {"aarch64": "arm64"}.get(architecture, architecture)
    )  # a Python for two, a library for one
