"""Compiles the native kernels into one shared library beside this file. `python -m octavo.kernels.native.build`.

Only the standard library is imported: the package's build hook runs this file by itself.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE / "liboctavo.so"
FLAGS = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
)
AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mtune=znver3")
SOURCES: dict[str, tuple[str, ...]] = {
    "api.cpp": (),
    "dispatch.cpp": (),
    "isa_portable.cpp": (),
    "../sampling/native/sampling.cpp": (),
    "pool.cpp": (),
    "session.cpp": (),
    "step.cpp": (),
    "isa_avx2.cpp": AVX2,
    "../linear/native/pack.cpp": (),
}
X86_ONLY = frozenset({"isa_avx2.cpp"})


def build(library: Path = LIBRARY, extra: tuple[str, ...] = ()) -> Path:
    """Compile and link; raises ``RuntimeError`` with the compiler's words if that fails."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise RuntimeError("no C++ compiler (c++, g++ or clang++) on the path")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    sources = {name: flags for name, flags in SOURCES.items() if x86 or name not in X86_ONLY}
    with tempfile.TemporaryDirectory() as folder:
        jobs = {name: Path(folder) / f"{index}-{Path(name).name}.o" for index, name in enumerate(sources)}

        def compile_one(name: str) -> None:
            _run([compiler, *FLAGS, *sources[name], *extra, "-c", str(HERE / name), "-o", str(jobs[name])])

        with ThreadPoolExecutor() as pool:
            list(pool.map(compile_one, jobs))
        made = Path(folder) / library.name
        _run([compiler, "-shared", *extra, *map(str, jobs.values()), "-o", str(made), "-lpthread"])
        shutil.copy2(made, library.with_suffix(".tmp"))
        library.with_suffix(".tmp").replace(library)
    return library


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr}")


if __name__ == "__main__":
    try:
        print(build())
    except RuntimeError as error:
        sys.exit(str(error))
