"""``octavo doctor``: what this machine has, what Octavo will use, what is missing and how to get it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo import __version__
from octavo.config import DEFAULT_MODEL, EngineConfig
from octavo.errors import OctavoError
from octavo.extras import is_installed
from octavo.folders import cache_folder

if TYPE_CHECKING:
    from octavo.hardware import Hardware

# What matters to the arithmetic of a model, fastest last; the kernel lists a hundred more.
INTERESTING_ISA = (
    "asimd",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "sve",
    "bf16",
)
SPARE_BYTES = 512 << 20  # disk space for the default model while it is fetched


@dataclass
class Finding:
    """One thing that was looked at. ``fix`` says what to do; ``fatal``: nothing can be served until it is done."""

    what: str
    found: str
    fix: str = ""
    fatal: bool = False


@dataclass
class Diagnosis:
    """All that `octavo doctor` says."""

    machine: list[Finding] = field(default_factory=list)
    software: list[Finding] = field(default_factory=list)
    settings: list[Finding] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        return [*self.machine, *self.software, *self.settings]

    @property
    def can_serve(self) -> bool:
        return not any(finding.fatal for finding in self.findings)


def register(app: typer.Typer) -> None:
    app.command("doctor", short_help="Check this machine: what it has, what is missing.")(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    build_native: Annotated[
        bool, typer.Option("--build-native", help="First build the native CPU kernels; needs a C++ compiler.")
    ] = False,
) -> None:
    """What this machine has, what Octavo will use, what is missing and how to get it.

    The exit code is 0 if a model can be served.
    """
    if build_native:
        _build_native()
    diagnosis = diagnose()
    if as_json:
        print(json.dumps({"can_serve": diagnosis.can_serve, **asdict(diagnosis)}, indent=2, ensure_ascii=False))
    else:
        _print(diagnosis)
    raise typer.Exit(0 if diagnosis.can_serve else 1)


def diagnose() -> Diagnosis:
    """Look at everything; nothing is fetched or loaded."""
    from octavo.hardware import detect

    hardware = detect()
    diagnosis = Diagnosis(
        machine=_machine(hardware), software=[_python(), *_packages(), _torch(hardware), _native_kernels()]
    )
    diagnosis.machine.append(_disk(cache_folder()))
    if diagnosis.can_serve:
        diagnosis.settings = _settings()
    return diagnosis


def _machine(hardware: Hardware) -> list[Finding]:
    from octavo.cli.output import format_bytes

    physical = f", {hardware.num_physical_cores} physical" if hardware.num_physical_cores else ""
    cores = Finding("cores", f"{hardware.num_cores} usable{physical} ({hardware.cpu_name})")
    memory = Finding(
        "memory", f"{format_bytes(hardware.available_bytes)} free of {format_bytes(hardware.memory_bytes)}"
    )
    known = [name for name in INTERESTING_ISA if name in hardware.isa]
    isa = Finding("instructions", " ".join(known) or "unknown")
    if platform.machine() in ("x86_64", "AMD64") and hardware.isa and "avx2" not in hardware.isa:
        isa.fix = "without avx2 every model is several times slower"
    gpus = [
        Finding(
            "GPU", f"{gpu.name}, {format_bytes(gpu.memory_bytes)}, compute capability {gpu.capability or 'unknown'}"
        )
        for gpu in hardware.gpus
    ]
    return [cores, isa, memory, *(gpus or [Finding("GPU", "none that the NVIDIA driver lists; models run on the CPU")])]


def _disk(cache: Path) -> Finding:
    from octavo.cli.output import format_bytes
    from octavo.models.registry import is_fetched, model_registry

    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    default = model_registry().find(DEFAULT_MODEL)
    fetched = default is not None and is_fetched(default)
    finding = Finding("model cache", f"{cache}, {format_bytes(free)} free")
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        finding.fix = f"{existing} is not a folder that you can write to; set OCTAVO_CACHE to one that is"
        finding.fatal = not fetched
    elif not fetched and free < SPARE_BYTES:
        finding.fix = f"free {format_bytes(SPARE_BYTES)}, or set OCTAVO_CACHE to a folder on another disk"
        finding.fatal = True
    return finding


def _python() -> Finding:
    return Finding("Python", f"{platform.python_version()} ({sys.executable})")


def _packages() -> list[Finding]:
    """The package's own requirements: one finding if all are there, else one for each that is not."""
    from importlib import metadata

    from packaging.requirements import Requirement

    wrong = []
    required = [Requirement(line) for line in metadata.requires("octavo") or []]
    required = [one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    for requirement in required:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = ""
        if not version or not requirement.specifier.contains(version, prereleases=True):
            fix = f"{sys.executable} -m pip install '{requirement.name}{requirement.specifier}'"
            wrong.append(Finding(requirement.name, version or "missing", fix, fatal=True))
    return wrong or [Finding("packages", f"all {len(required)} that octavo {__version__} needs")]


def _torch(hardware: Hardware) -> Finding:
    """Optional: without a GPU the native kernels serve, and they need none."""
    if not is_installed("torch"):
        finding = Finding("torch", "not installed; the native kernels need none")
        if hardware.gpus:
            finding.fix = f"to use the GPU: {sys.executable} -m pip install 'octavo[gpu]'"
        return finding
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of a broken build
        fix = f"{sys.executable} -m pip install --force-reinstall torch, or uninstall it: the native kernels need none"
        return Finding("torch", f"cannot be imported: {error}", fix)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    finding = Finding("torch", f"{torch.__version__}, {build}, {torch.backends.cpu.get_cpu_capability()}")
    if hardware.gpus and not torch.cuda.is_available():
        finding.found += "; it cannot use the GPU"
        finding.fix = f"a CUDA build for your driver: {sys.executable} -m pip install --force-reinstall torch"
    return finding


def _native_kernels() -> Finding:
    """Whether the library of C++ kernels is there, and the instruction set it uses. Fatal only without torch, which can serve."""
    from octavo.kernels.native import build, library

    try:
        path = library.find()
        return Finding("native kernels", f"for {library.best_isa()}, {path}")
    except OSError as error:
        finding = Finding("native kernels", str(error))
    try:
        build.find_compiler()
        finding.fix = "octavo doctor --build-native"
    except build.NoCompilerError:
        finding.fix = f"install a C++ compiler ({_compiler_command()}), then octavo doctor --build-native"
    if is_installed("torch"):
        finding.fix = f"models on the CPU run on torch, more slowly: {finding.fix}"
    else:
        finding.fix += f"; or serve by torch: {sys.executable} -m pip install 'octavo[torch]'"
        finding.fatal = True
    return finding


def _compiler_command() -> str:
    if platform.system() == "Darwin":
        return "xcode-select --install"
    managers = {
        "apt-get": "install g++",
        "dnf": "install gcc-c++",
        "zypper": "install gcc-c++",
        "apk": "add g++",
        "pacman": "-S gcc",
    }
    found = next((name for name in managers if shutil.which(name)), "")
    return f"sudo {found} {managers[found]}" if found else "g++ or clang++"


def _build_native() -> None:
    from octavo.cli.output import stderr
    from octavo.kernels.native import library

    console = stderr()
    console.print("building the native kernels (up to a minute)")
    try:
        console.print(f"built {library.make()}", markup=False)
    except (RuntimeError, OSError) as error:
        console.print(f"error: the native kernels cannot be built: {error}", markup=False)
        raise typer.Exit(1) from error


def _settings() -> list[Finding]:
    """What ``octavo serve`` will choose for the default model; without its files only what does not depend on it."""
    from octavo.engine.build import usable_hardware
    from octavo.engine.resolve import FAKE_MODEL, resolve
    from octavo.models.load import read_config
    from octavo.models.registry import cached_path, is_fetched, model_registry

    entry = model_registry().find(DEFAULT_MODEL)
    path = cached_path(entry) if entry is not None and is_fetched(entry) else None
    here = Finding(
        "default model", f"{DEFAULT_MODEL}, {'fetched' if path else 'not here yet: octavo serve fetches it'}"
    )
    try:
        resolution = resolve(EngineConfig(), read_config(path) if path else FAKE_MODEL, usable_hardware())
    except OctavoError as error:
        return [here, Finding("serving it", "not possible", error.message, fatal=True)]
    model_dependent = ("max_model_len", "num_blocks")
    chosen = [
        Finding(name, f"{getattr(resolution.config, name)}: {reason}")
        for name, reason in resolution.reasons.items()
        if path or name not in model_dependent
    ]
    return [here, *chosen]


def _print(diagnosis: Diagnosis) -> None:
    from rich.table import Table
    from rich.text import Text

    from octavo.cli.output import stdout

    console = stdout()
    sections: tuple[tuple[str, list[Finding]], ...] = (
        ("This machine", diagnosis.machine),
        ("Installed", diagnosis.software),
        ("octavo serve will use", diagnosis.settings),
    )
    for title, findings in sections:
        if not findings:
            continue
        console.print(Text(title, style="bold"))
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, min_width=16)
        table.add_column(overflow="fold")
        for finding in findings:
            table.add_row(_mark(finding), finding.what, Text(finding.found))
            if finding.fix:
                table.add_row("", "", Text(f"-> {finding.fix}", style="yellow"))
        console.print(table)
        console.print()
    _print_verdict(console, diagnosis)


def _mark(finding: Finding) -> Any:
    from rich.text import Text

    if finding.fatal:
        return Text("  no", style="bold red")
    return Text("   !", style="yellow") if finding.fix else Text("  ok", style="green")


def _print_verdict(console: Any, diagnosis: Diagnosis) -> None:
    from rich.text import Text

    if diagnosis.can_serve:
        console.print(Text("Ready: octavo serve", style="bold green"))
    else:
        num_fatal = sum(finding.fatal for finding in diagnosis.findings)
        console.print(Text(f"Cannot serve: {num_fatal} thing(s) to fix, marked 'no' above", style="bold red"))
