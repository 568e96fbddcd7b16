"""Sanitizer run of the native kernels' tests (``make sanitize``): debug build with bounds checks, ASan and UBSan.

``--if-changed`` leaves C++ sources alone that passed before, as ``verified.json`` records; a full pass without it is recorded.
The package is copied to ``build/sanitize``, so that its library is the only other thing there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import verified

from octavo.kernels.native import build

ROOT = Path(__file__).parents[2]
COPY = ROOT / "build" / "sanitize"
# Not under it: what looks at the released build, what starts programs of its own, and what is Python more than kernels.
LEFT_OUT = {"test_native_build.py", "test_native_thread_pool.py", "test_native_packed_model.py"}


def main(arguments: list[str]) -> int:
    """``arguments`` go to pytest, but for ``--if-changed``."""
    sources = verified.native_hash()
    if "--if-changed" in arguments:
        if verified.is_verified("sanitizers", sources):
            print(f"the C++ sources ({sources}) passed under the sanitizers before; make sanitize-all runs them again")
            return 0
        arguments = [one for one in arguments if one != "--if-changed"]
    try:
        compiler = build.find_compiler()
    except build.NoCompilerError as error:
        print(f"nothing to sanitize: {error}")
        return 0
    runtime = [runtime_library(compiler, name) for name in ("asan", "ubsan")]
    if not all(path.is_absolute() for path in runtime):
        print(f"nothing to sanitize: {compiler} brings no sanitizer runtimes")
        return 0
    make_copy()
    tests = [str(path) for path in sorted((ROOT / "tests").rglob("test_native_*.py")) if path.name not in LEFT_OUT]
    environment = {
        **os.environ,
        "PYTHONPATH": str(COPY),
        "LD_PRELOAD": " ".join(map(str, runtime)),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",  # an interpreter leaves memory behind
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    # Tests named any_batch repeat with many batches what the others have run once; the emulated kernels are not in the library.
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-k",
        "not any_batch and not emulated",
        *tests,
        *arguments,
    ]
    failed = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
    if not failed:
        verified.record("sanitizers", sources)
    return failed


def runtime_library(compiler: str, name: str) -> Path:
    """Of a sanitizer; a relative path if the compiler has none."""
    words = [compiler, f"-print-file-name=lib{name}.so"]
    return Path(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())


def make_copy() -> None:
    """The package and its debug library, which is built again only if the sources have changed."""
    library = COPY / "octavo" / build.LIBRARY.relative_to(ROOT / "src" / "octavo")
    built = library.read_bytes() if library.is_file() else b""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(ROOT / "src" / "octavo", COPY / "octavo", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    if built:
        library.write_bytes(built)
    if not build.is_current(library):
        print("building the native kernels with the sanitizers", flush=True)
        build.build(library, build.DEBUG)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
