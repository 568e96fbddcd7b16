"""Usable hardware: cores, memory, instruction sets and GPUs within affinity and cgroup limits. Imports no torch.

A container sees all cores and all memory of its machine, but gets what its cgroup grants. Every number here is the smallest
of what the machine has and what the limits leave. Sources: proc(5), cgroups(7), the kernel's admin-guide/cgroup-v2.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
DEV = Path("/dev")
NVIDIA_SMI_TIMEOUT_S = 10.0
_UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63


@dataclass(frozen=True, slots=True)
class GPU:
    """One NVIDIA GPU. ``capability`` is CUDA's compute capability, e.g. "9.0"; empty if the driver does not tell."""

    name: str
    memory_bytes: int
    capability: str = ""


@dataclass(frozen=True, slots=True)
class Hardware:
    """``num_cores`` are logical cores that may be used (affinity and cgroup quota counted, at least 1).

    ``isa`` holds the kernel's names for the CPU's features (avx2, avx512f, avx512_bf16, amx_bf16, asimd, ...); empty where
    the system does not tell. ``num_physical_cores`` is 0 where it is unknown.
    """

    num_cores: int
    memory_bytes: int  # the machine's, or the cgroup's limit if that is lower
    available_bytes: int  # of those, what can be taken now without swapping
    isa: frozenset[str] = frozenset()
    gpus: tuple[GPU, ...] = ()
    num_physical_cores: int = 0
    cpu_name: str = ""
    native_isa: str = ""  # the native kernels that are built and that this CPU runs; ``detect`` does not look for them
    has_torch: bool = True  # whether torch is installed; ``detect`` does not look for it


def detect(proc_root: Path = PROC, cgroup_root: Path = CGROUP, dev_root: Path = DEV) -> Hardware:
    """Look at this machine. The roots are arguments so that a test can bring its own machine."""
    logical = usable_logical_cores()
    cpus = _cpu_blocks(proc_root)
    memory_bytes, available_bytes = _memory(proc_root)
    cgroup = read_cgroup(proc_root, cgroup_root)
    quota = len(logical) if cgroup.cores is None else max(1, int(cgroup.cores))  # a throttled thread stalls the step
    if cgroup.memory_bytes is not None:
        memory_bytes = min(memory_bytes, cgroup.memory_bytes)
        available_bytes = min(available_bytes, max(0, cgroup.memory_bytes - cgroup.used_bytes))
    flags = cpus[0].get("flags") or cpus[0].get("Features", "") if cpus else ""
    return Hardware(
        num_cores=min(len(logical), quota),
        memory_bytes=memory_bytes,
        available_bytes=available_bytes,
        isa=frozenset(flags.split()),
        gpus=find_gpus(dev_root),
        num_physical_cores=_num_physical(cpus, logical),
        cpu_name=_cpu_name(cpus),
    )


def usable_logical_cores() -> frozenset[int]:
    """The cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))  # macOS has no affinity


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The tightest limits on the way from this process's cgroup to the root; None: no limit."""

    cores: float | None = None
    memory_bytes: int | None = None
    used_bytes: int = 0  # by the cgroup with that memory limit, without page cache that can be dropped


def read_cgroup(proc_root: Path, cgroup_root: Path) -> CgroupLimits:
    """cgroup v2, v1 or both (hybrid): limits of every level count, the lowest wins."""
    cores: list[float] = []
    memory: list[tuple[int, int]] = []
    for controllers, path in _memberships(proc_root):
        for folder in _levels(controllers, path, cgroup_root):
            if (quota := _cpu_quota(folder)) is not None:
                cores.append(quota)
            if (limit := _memory_limit(folder)) is not None:
                memory.append((limit, _memory_used(folder)))
    limit, used = min(memory, default=(None, 0), key=lambda pair: pair[0])
    return CgroupLimits(min(cores, default=None), limit, used)


def find_gpus(dev_root: Path = DEV, command: str = "nvidia-smi") -> tuple[GPU, ...]:
    """NVIDIA GPUs that the driver lists; the driver is asked only if its device files exist. Nothing if it does not answer."""
    if not ((dev_root / "nvidiactl").exists() or (dev_root / "dxg").exists()):  # dxg: the GPU under WSL
        return ()
    program = shutil.which(command)
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, no shell
            query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()  # a broken driver is a machine without a GPU; `octavo doctor` shows the device files
    return tuple(_parse_gpus(done.stdout))


def _parse_gpus(text: str) -> Iterator[GPU]:
    """Lines of ``name, MiB, capability``; memory is "[N/A]" on some integrated boards."""
    for line in text.splitlines():
        name, memory_mib, capability = (*(part.strip() for part in line.rsplit(",", 2)), "", "")[:3]
        if not memory_mib:
            continue  # "No devices were found"
        yield GPU(
            name=name,
            memory_bytes=int(memory_mib) << 20 if memory_mib.isdecimal() else 0,
            capability=capability if capability[:1].isdecimal() else "",
        )


def _text(path: Path) -> str:
    """A small kernel file; empty if it is not there or not for us to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu_blocks(proc_root: Path) -> list[dict[str, str]]:
    """/proc/cpuinfo: one mapping per logical core."""
    blocks: list[dict[str, str]] = []
    for part in _text(proc_root / "cpuinfo").split("\n\n"):
        pairs = (line.partition(":") for line in part.splitlines() if ":" in line)
        if fields := {key.strip(): value.strip() for key, _, value in pairs}:
            blocks.append(fields)
    return blocks


def _num_physical(cpus: list[dict[str, str]], logical: frozenset[int]) -> int:
    """Distinct (socket, core) pairs among the usable logical cores; 0 if the kernel does not name them."""
    usable = [cpu for cpu in cpus if cpu.get("processor", "").isdecimal() and int(cpu["processor"]) in logical]
    cores = {(cpu.get("physical id"), cpu["core id"]) for cpu in usable if "core id" in cpu}
    return len(cores)


def _cpu_name(cpus: list[dict[str, str]]) -> str:
    return (cpus[0].get("model name", "") if cpus else "") or platform.processor() or platform.machine()


def _memory(proc_root: Path) -> tuple[int, int]:
    """Total and available bytes of the machine."""
    kib: dict[str, int] = {}
    for line in _text(proc_root / "meminfo").splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdecimal():
            kib[name] = int(number[0])
    if "MemTotal" in kib:
        return kib["MemTotal"] << 10, kib.get("MemAvailable", kib.get("MemFree", 0)) << 10
    import psutil  # macOS and Windows have no /proc

    memory = psutil.virtual_memory()
    return memory.total, memory.available


def _memberships(proc_root: Path) -> Iterator[tuple[list[str], str]]:
    """Lines of /proc/self/cgroup: controllers (none: cgroup v2) and the path below the mount."""
    for line in _text(proc_root / "self" / "cgroup").splitlines():
        _, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        yield [name for name in controllers.split(",") if name], path


def _levels(controllers: list[str], path: str, cgroup_root: Path) -> Iterator[Path]:
    """Folders from the process's cgroup up to the mount; those that a container cannot see are skipped."""
    mounts = [cgroup_root / name for name in controllers] if controllers else [cgroup_root, cgroup_root / "unified"]
    for mount in mounts:
        folder = mount / path.strip("/")
        while folder != mount:
            yield folder
            folder = folder.parent
        yield mount


def _cpu_quota(folder: Path) -> float | None:
    """Cores' worth of time per period: v2 ``cpu.max`` is "quota period" or "max period", v1 has one file for each."""
    quota, period = ([*_text(folder / "cpu.max").split(), "", ""])[:2]
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None  # "max", -1, or no such file
    return int(quota) / int(period)


def _memory_limit(folder: Path) -> int | None:
    limit = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")
    return int(limit) if limit.isdecimal() and int(limit) < _UNLIMITED_BYTES else None


def _memory_used(folder: Path) -> int:
    used = _text(folder / "memory.current") or _text(folder / "memory.usage_in_bytes")
    droppable = 0
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            droppable = max(droppable, int(value))
    return max(0, int(used) - droppable) if used.isdecimal() else 0
