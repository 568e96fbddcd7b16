"""Build of the native CPU kernels into one shared library: compiler flags per instruction set, source hash.

``python -m octavo.kernels.native.build [--force] [--optional]``.

Only the standard library is imported: the package's build hook runs this file by itself.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parent
LIBRARY = HERE / "liboctavo.so"
MARKER = b"octavo-source-hash:"  # api.cpp puts it before the hash of what it was compiled from
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
# Of the system's libraries only those that are used; the C++ runtime is not (storage.hpp).
LINK = ("-Wl,--as-needed",) if sys.platform == "linux" else ()
# Fused multiplications only where they are spelled out: every ARM CPU has them, so a compiler would fuse here and not there.
ARM = ("-ffp-contract=off",)
# What any CPU of the machine's architecture runs; some distributions' compilers assume more by themselves.
BASELINE: dict[str, tuple[str, ...]] = {
    "x86_64": ("-march=x86-64", "-mtune=generic"),
    "aarch64": (*ARM, "-march=armv8-a"),
}
AVX2 = ("-mavx2", "-mfma", "-mf16c")
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx512bf16")
# `isa_<name>.cpp`, where it exists, is compiled with these flags on this architecture; every other source with the baseline.
ISAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "avx2": ("x86_64", (*AVX2, "-mtune=znver3")),
    "avxvnni": ("x86_64", (*AVX2, "-mavxvnni")),
    "avx512": ("x86_64", (*AVX2, *AVX512)),
    "neon": ("aarch64", (*ARM, "-march=armv8.2-a+dotprod+fp16")),
}
# Bounds checks, and what the sanitizers see; a library of them loads only with the sanitizer's runtime in LD_PRELOAD.
DEBUG = (
    "-DOCTAVO_DEBUG",
    "-O0",  # a quarter of the time that -O1 takes to compile, which is most of it
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
)


class NoCompilerError(RuntimeError):
    """The torch path serves without native kernels, so this is no reason to fail an installation."""


def build(library: Path = LIBRARY, extra: tuple[str, ...] = ()) -> Path:
    """Compile and link; raises ``RuntimeError`` with the compiler's words if that fails, ``OSError`` if it cannot be written."""
    compiler = find_compiler()
    units = _units(compiler)
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        objects = [Path(folder) / f"{index}-{unit.stem}.o" for index, unit in enumerate(units)]
        jobs = [
            [compiler, *FLAGS, *flags, *extra, "-c", str(unit), "-o", str(made)]
            for (unit, flags), made in zip(units.items(), objects, strict=True)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, jobs))
        linked = Path(folder) / library.name
        _run([compiler, "-shared", *LINK, *extra, *map(str, objects), "-o", str(linked), "-lpthread"])
        beside = library.with_name(f"{library.stem}-{os.getpid()}{library.suffix}")
        shutil.copy2(linked, beside)
        beside.replace(library)  # in one piece; whoever runs the old one keeps it
    return library


def is_current(library: Path = LIBRARY) -> bool:
    """Whether it is there and was built from the sources as they are; what ``source_hash`` raises."""
    return built_hash(library) == source_hash()


def build_program(source: Path, program: Path, extra: tuple[str, ...] = ()) -> Path:
    """Compile a C++ program over the thread pool, which needs no kernel table; raises as ``build`` does."""
    inputs = [f"-I{HERE}", str(source), str(HERE / "thread_pool.cpp")]
    _run([find_compiler(), *FLAGS, *_baseline(), *extra, *inputs, "-o", str(program), "-lpthread"])
    return program


def source_hash() -> str:
    """Of all that a library is built from, this file's flags included. Raises ``OSError`` where the sources are not files."""
    digest = hashlib.sha256()
    for path in (Path(__file__).resolve(), *_files(".cpp", ".hpp", ".inc")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(KERNELS).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def built_hash(library: Path) -> str:
    """The ``source_hash`` that ``library`` was built from, read without loading it; empty if there is no such file."""
    try:
        _, found, rest = library.read_bytes().partition(MARKER)
    except OSError:
        return ""
    return rest[:16].decode("ascii", "replace") if found else ""


def find_compiler() -> str:
    """Of C++; raises ``NoCompilerError`` if there is none."""
    if compiler := shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        return compiler
    raise NoCompilerError("no C++ compiler (c++, g++ or clang++) on the path")


def architecture() -> str:
    """``x86_64`` and ``aarch64`` by these names, others by the system's."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _units(compiler: str) -> dict[Path, tuple[str, ...]]:
    """Every source that this machine's library has, with its flags."""
    baseline = _baseline()
    isas = {HERE / f"isa_{name}.cpp": flags for name, flags in _compiled_isas(compiler).items()}
    told = tuple(f"-DOCTAVO_WITH_{path.stem.removeprefix('isa_').upper()}" for path in isas)
    units: dict[Path, tuple[str, ...]] = {}
    for path in sorted(_files(".cpp"), key=_compile_order):
        if path in isas:
            units[path] = isas[path]
        elif path.name == "dispatch.cpp":
            units[path] = (*baseline, *told)
        elif path.name == "api.cpp":
            units[path] = (*baseline, f'-DOCTAVO_SOURCE_HASH="{source_hash()}"')
        elif path.stem.removeprefix("isa_") not in ISAS:
            units[path] = baseline
    return units


def _compile_order(path: Path) -> tuple[bool, bool]:
    """The slow ones first, so that none is left over at the end: the kernels, the portable ones before all."""
    return path.name != "isa_portable.cpp", not path.name.startswith("isa_")


def _compiled_isas(compiler: str) -> dict[str, tuple[str, ...]]:
    """The instruction sets of this architecture that have a source and that the compiler knows."""
    here = {name: flags for name, (machine, flags) in ISAS.items() if machine == architecture()}
    probe = [compiler, "-x", "c++", "-fsyntax-only", "/dev/null"]
    return {
        name: flags
        for name, flags in here.items()
        if (HERE / f"isa_{name}.cpp").is_file() and _succeeds([*probe, *flags])
    }


def _baseline() -> tuple[str, ...]:
    return BASELINE.get(architecture(), ())


def _files(*endings: str) -> list[Path]:
    return sorted(path for path in KERNELS.glob("**/*") if path.suffix in endings)


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - the compiler
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr}")


def _succeeds(words: list[str]) -> bool:
    try:
        _run(words)
    except RuntimeError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """``--force``: also if nothing has changed. ``--optional``: no compiler is no error, for make."""
    try:
        if "--force" in arguments or not is_current():
            print(f"building the native kernels: {LIBRARY}", flush=True)
            build()
    except (RuntimeError, OSError) as error:
        print(f"the native kernels cannot be built: {error}", file=sys.stderr)
        return 0 if "--optional" in arguments and isinstance(error, NoCompilerError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
