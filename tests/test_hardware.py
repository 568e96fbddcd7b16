"""Hardware detection against machines made of files: containers with limits, odd cores, broken drivers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from octavo import hardware
from octavo.hardware import GPU, detect, find_gpus, read_cgroup

MEMINFO = (
    "MemTotal:       16384000 kB\nMemFree:         1000 kB\nMemAvailable:    8192000 kB\nHugePages_Total:       0\n"
)


class Machine:
    """A /proc, /sys/fs/cgroup and /dev of its own."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup, self.dev = root / "proc", root / "cgroup", root / "dev"
        for folder in (self.proc / "self", self.cgroup, self.dev):
            folder.mkdir(parents=True)
        self.write(self.proc / "meminfo", MEMINFO)
        self.member("0::/\n")
        self.cpus()

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def member(self, text: str) -> None:
        self.write(self.proc / "self" / "cgroup", text)

    def limit(self, path: str, text: str) -> None:
        self.write(self.cgroup / path, text)

    def cpus(self, threads_per_core: int = 2, flags: str = "fpu avx2 avx512_bf16") -> None:
        blocks = [
            f"processor\t: {cpu}\nmodel name\t: Test CPU\nphysical id\t: 0\n"
            f"core id\t\t: {cpu // threads_per_core}\nflags\t\t: {flags}"
            for cpu in range(8)
        ]
        self.write(self.proc / "cpuinfo", "\n\n".join(blocks) + "\n\n")

    def detect(self) -> hardware.Hardware:
        return detect(self.proc, self.cgroup, self.dev)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(hardware, "usable_logical_cores", lambda: frozenset(range(8)))
    return Machine(tmp_path)


def test_without_limits_everything_is_usable(machine: Machine) -> None:
    found = machine.detect()
    assert (found.num_cores, found.num_physical_cores) == (8, 4)
    assert (found.memory_bytes, found.available_bytes) == (16384000 << 10, 8192000 << 10)
    assert {"avx2", "avx512_bf16"} <= found.isa
    assert found.cpu_name == "Test CPU"
    assert found.gpus == ()


def test_affinity_limits_logical_and_physical_cores(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "usable_logical_cores", lambda: frozenset({0, 1, 2}))
    found = machine.detect()
    assert (found.num_cores, found.num_physical_cores) == (3, 2)


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("max 100000", 8),
        ("9900000 100000", 8),
        ("", 8),
    ],
)
def test_cgroup_v2_quota(machine: Machine, cpu_max: str, cores: int) -> None:
    machine.limit("cpu.max", cpu_max + "\n")
    assert machine.detect().num_cores == cores


def test_the_tightest_level_of_cgroup_v2_wins(machine: Machine) -> None:
    machine.member("0::/kube/pod/container\n")
    machine.limit("kube/pod/container/cpu.max", "max 100000")
    machine.limit("kube/pod/cpu.max", "300000 100000")
    machine.limit("kube/cpu.max", "600000 100000")
    machine.limit("kube/pod/container/memory.max", str(6 << 30))
    machine.limit("kube/memory.max", str(4 << 30))
    machine.limit("kube/memory.current", str(3 << 30))
    machine.limit("kube/memory.stat", f"anon 5\ninactive_file {1 << 30}\n")
    found = machine.detect()
    assert (found.num_cores, found.memory_bytes, found.available_bytes) == (3, 4 << 30, 2 << 30)


def test_cgroup_v1_and_unlimited_values(machine: Machine) -> None:
    machine.member("5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n")
    machine.limit("cpu/docker/x/cpu.cfs_quota_us", "200000")
    machine.limit("cpu/docker/x/cpu.cfs_period_us", "100000")
    machine.limit("memory/memory.limit_in_bytes", "9223372036854771712")
    assert read_cgroup(machine.proc, machine.cgroup).memory_bytes is None
    assert machine.detect().num_cores == 2
    machine.limit("memory/docker/x/memory.limit_in_bytes", str(1 << 30))
    machine.limit("memory/docker/x/memory.usage_in_bytes", str(2 << 30))
    assert (machine.detect().memory_bytes, machine.detect().available_bytes) == (1 << 30, 0)
    machine.limit("cpu/docker/x/cpu.cfs_quota_us", "-1")
    assert machine.detect().num_cores == 8


def test_paths_outside_the_cgroup_namespace_end(machine: Machine) -> None:
    machine.member("0::/../../elsewhere\n1:name=systemd:/a:b\n\nnonsense\n")
    machine.limit("cpu.max", "100000 100000")
    assert machine.detect().num_cores == 1


def test_unreadable_files_are_no_limits(machine: Machine) -> None:
    (machine.proc / "cpuinfo").unlink()
    (machine.proc / "self" / "cgroup").unlink()
    found = machine.detect()
    assert (found.num_cores, found.isa, found.num_physical_cores) == (8, frozenset(), 0)


def test_without_proc_the_system_is_asked_another_way(machine: Machine) -> None:
    (machine.proc / "meminfo").unlink()
    found = machine.detect()
    assert found.memory_bytes >= found.available_bytes > 0


def _driver(folder: Path, script: str) -> str:
    """A program called like nvidia-smi that prints what the test wants."""
    program = folder / "fake-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_gpus_as_the_driver_lists_them(machine: Machine, tmp_path: Path) -> None:
    driver = _driver(tmp_path, "printf 'NVIDIA H100, 80GB, 81559, 9.0\\nOrin, [N/A], [N/A]\\n'")
    assert find_gpus(machine.dev, driver) == ()  # no device files: the driver is not asked
    (machine.dev / "nvidiactl").touch()
    assert find_gpus(machine.dev, driver) == (GPU("NVIDIA H100, 80GB", 81559 << 20, "9.0"), GPU("Orin", 0, ""))


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "printf '\\n'"])
def test_a_broken_driver_is_no_gpu(machine: Machine, tmp_path: Path, script: str) -> None:
    (machine.dev / "nvidiactl").touch()
    assert find_gpus(machine.dev, _driver(tmp_path, script)) == ()
    assert find_gpus(machine.dev, "no-such-program-here") == ()


def test_a_hanging_driver_is_given_up(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.dev / "nvidiactl").touch()
    monkeypatch.setattr(hardware, "NVIDIA_SMI_TIMEOUT_S", 0.2)
    assert find_gpus(machine.dev, _driver(tmp_path, "exec sleep 30")) == ()


def test_this_machine() -> None:
    found = detect()
    assert 1 <= found.num_cores <= (os.cpu_count() or 1)
    assert 0 < found.available_bytes <= found.memory_bytes


def test_torch_is_not_imported() -> None:
    code = "import sys, octavo.hardware as h; h.detect(); print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
