"""CUDA C++ compilation at first use by NVRTC (a library, no toolkit needed) or nvcc, with a cache of cubins.

NVRTC is looked for among torch's own packages (a CUDA build of torch needs it and brings it), then by its name on the
system; without it ``nvcc`` compiles, if there is one. The cubin's name in the cache holds a hash of everything it comes from.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

from octavo.errors import KernelError
from octavo.folders import cache_folder

HEADERS = Path(__file__).parent / "cuda"
OPTIONS = ("--std=c++20", "--generate-line-info")
_ELF = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class CudaSource:
    """One entry point (``extern "C"``) of a ``.cu`` file under one set of macros. All entries of the file share the cubin.

    ``parameters``: the entry's, one letter each: ``P`` pointer, ``i`` int, ``q`` int64_t, ``f`` float, ``T`` tensor map
    (those come first). ``threads`` of a block is the macro ``THREADS``. ``shared_bytes``: dynamic shared memory.
    ``suffix``: ``"a"`` for instructions that exist on one architecture alone (wgmma).
    """

    path: Path
    entry: str
    parameters: str
    threads: int
    shared_bytes: int = 0
    defines: tuple[tuple[str, str | int], ...] = ()
    suffix: str = ""

    def macros(self) -> tuple[str, ...]:
        """As compiler options."""
        return tuple(f"-D{name}={value}" for name, value in (*self.defines, ("THREADS", self.threads)))

    def entries(self) -> list[str]:
        """All that the file has."""
        return re.findall(r'extern "C" __global__ void\s+(?:__\w+__\([^)]*\)\s*)*(\w+)\(', self.path.read_text())

    def text_hash(self, *more: str) -> str:
        """Of what is compiled: the file, all headers that it can include, the macros and ``more``."""
        digest = hashlib.sha256()
        for path in (self.path, *sorted(self.path.parent.glob("*.cuh")), *sorted(HEADERS.iterdir())):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
        digest.update("\n".join((*self.macros(), *more)).encode())
        return digest.hexdigest()[:24]


def cubin(source: CudaSource, architecture: int) -> bytes:
    """``source`` for ``sm_<architecture>``: from the cache, else compiled and kept. ``KernelError`` with the line that fails."""
    target = f"sm_{architecture}{source.suffix}"
    compiler = _compiler()
    key = source.text_hash(target, *OPTIONS, compiler.version)
    file = cache_folder() / "kernels" / "cubin" / f"{source.path.stem}-{target}-{key}.cubin"
    if (found := _read(file)) is not None:
        return found
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):  # two processes that start together compile once
            if (found := _read(file)) is not None:
                return found
            made = compiler.compile(source, target)
            replace(file, made)
    except OSError:  # a read-only or full disk: this process compiles for itself
        return compiler.compile(source, target)
    return made


def replace(file: Path, content: bytes) -> None:
    """Write in one piece: whoever reads sees all or nothing."""
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as beside:
        beside.write(content)
    Path(beside.name).replace(file)


def _read(file: Path) -> bytes | None:
    try:
        content = file.read_bytes()
    except OSError:
        return None
    return content if content.startswith(_ELF) else None


@cache
def _compiler() -> Nvrtc | Nvcc:
    """The first that is there."""
    for path in _libraries():
        try:
            for part in Path(path).parent.glob("libnvrtc-builtins.so.1?.*"):
                ctypes.CDLL(str(part))  # NVRTC asks the loader for it by name, which does not look beside NVRTC
            return Nvrtc(ctypes.CDLL(path))
        except OSError:
            continue
    if program := shutil.which("nvcc"):
        return Nvcc(program)
    raise KernelError(
        "CUDA kernels need NVRTC, which was not found: pip install nvidia-cuda-nvrtc (a CUDA build of torch brings it), "
        "or put nvcc on the path"
    )


def _libraries() -> Iterator[str]:
    """Candidates for libnvrtc, newest first: NVIDIA's Python packages, then what the loader knows by name."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for pattern in ("cu1?/lib/libnvrtc.so.1?", "cuda_nvrtc/lib/libnvrtc.so.1?"):
            yield from map(str, sorted(Path(folder).glob(pattern), reverse=True))
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


class Nvrtc:
    """libnvrtc by ctypes."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"nvrtc {major.value}.{minor.value}"

    def compile(self, source: CudaSource, target: str) -> bytes:
        """-> the cubin; ``KernelError`` with the compiler's words, which name file and line."""
        options = (f"--gpu-architecture={target}", f"--include-path={HEADERS}", *OPTIONS, *source.macros())
        options += (f"--include-path={source.path.parent}",)
        program = ctypes.c_void_p()
        text, name = source.path.read_bytes(), str(source.path).encode()
        self._call("nvrtcCreateProgram", ctypes.byref(program), text, name, 0, None, None)
        try:
            words = (ctypes.c_char_p * len(options))(*(one.encode() for one in options))
            if self._library.nvrtcCompileProgram(program, len(options), words):
                log = self._text(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
                raise KernelError(f"{source.path.name} does not compile for {target} ({self.version}):\n{log}")
            return self._text(program, "CUBIN")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, out)
        return out.raw

    def _call(self, name: str, *arguments: object) -> None:
        if code := getattr(self._library, name)(*arguments):
            raise KernelError(f"{name}: {self._library.nvrtcGetErrorString(code).decode()}")


class Nvcc:
    """The toolkit's compiler, where NVRTC is missing."""

    def __init__(self, program: str) -> None:
        self._program = program
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
        self.version = "nvcc " + done.stdout.strip().splitlines()[-1]

    def compile(self, source: CudaSource, target: str) -> bytes:
        """-> the cubin; ``KernelError`` with the compiler's words."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "kernel.cubin"
            options = (f"--gpu-architecture={target}", f"--include-path={HEADERS}", *OPTIONS, *source.macros())
            words = [self._program, "--cubin", *options, str(source.path), "--output-file", str(out)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                raise KernelError(f"{source.path.name} does not compile for {target} ({self.version}):\n{done.stderr}")
            return out.read_bytes()
