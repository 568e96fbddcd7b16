"""Build, lookup and packaging of the native library: no instruction that a CPU may lack, no stale library, no compiler."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from octavo.kernels.native import build, library
from support.installation import without
from support.native_library import isas, needs_native

ROOT = Path(__file__).parents[2]
SYMBOL = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\s+(\S+)\s*(.*)$")


def python(code: str, source: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Another interpreter that takes octavo from ``source``."""
    environment = {**os.environ, "PYTHONPATH": str(source), **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package, with its library; the folder to import it from."""
    shutil.copytree(ROOT / "src" / "octavo", tmp_path / "src" / "octavo", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "src"


@needs_native
@pytest.mark.skipif(build.architecture() != "x86_64", reason="looks for AVX")
@pytest.mark.skipif(not shutil.which("objdump"), reason="no objdump")
def test_only_code_behind_the_dispatch_has_instructions_that_a_cpu_may_lack() -> None:
    """Also if the linker keeps one copy of a function that several instruction sets were compiled with."""
    words = ["objdump", "-d", "-C", "--no-show-raw-insn", str(build.LIBRARY)]
    listing = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    function, num_vector, wrong = "", 0, []
    for line in listing.splitlines():
        if symbol := SYMBOL.match(line):
            function = symbol[1]
        elif (found := INSTRUCTION.match(line)) and (found[1].startswith("v") or re.search("%[yz]mm", found[2])):
            num_vector += 1
            if not re.search(rf"octavo::({'|'.join(build.ISAS)})(::|_table\b)", function):
                wrong.append(f"{function}: {line.strip()}")
    assert num_vector > 0, "the listing was not understood"
    assert wrong == []


@needs_native
def test_the_best_instruction_set_is_one_that_runs_here() -> None:
    assert library.best_isa() in isas()
    assert library.kernel_table("portable") is not None
    assert library.kernel_table("pentium") is None
    if platform.machine() == "x86_64":
        from octavo.hardware import detect

        assert (library.kernel_table("avx2") is not None) == ({"avx2", "fma", "f16c"} <= detect().isa)


LOAD = """
from octavo.kernels.native import library
try:
    print(library.find(), library.best_isa())
except OSError as error:
    print(f"OSError: {error}")
"""


@needs_native
def test_a_library_of_other_sources_is_not_loaded(copied: Path) -> None:
    beside = copied / "octavo" / "kernels" / "native" / "liboctavo.so"
    assert python(LOAD, copied).stdout == f"{beside} {library.best_isa()}\n"
    with (beside.parent / "types.hpp").open("a") as header:
        header.write("// changed\n")
    said = python(LOAD, copied).stdout
    assert said.startswith("OSError: ") and "other sources" in said


@needs_native
def test_a_users_own_library_serves_where_the_package_has_none(copied: Path, tmp_path: Path) -> None:
    (copied / "octavo" / "kernels" / "native" / "liboctavo.so").unlink()
    cache = {"OCTAVO_CACHE": str(tmp_path / "cache")}
    assert "not built" in python(LOAD, copied, **cache).stdout
    own = tmp_path / "cache" / "native" / f"liboctavo-{build.source_hash()}-{build.architecture()}.so"
    own.parent.mkdir(parents=True)
    shutil.copy(build.LIBRARY, own)
    assert python(LOAD, copied, **cache).stdout == f"{own} {library.best_isa()}\n"
    own.parent.chmod(0o777)  # anybody could have put it there
    assert "other users" in python(LOAD, copied, **cache).stdout


@needs_native
@pytest.mark.skipif(not shutil.which("objdump"), reason="no objdump")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads glibc's symbol versions")
def test_the_wheels_tag_is_the_newest_glibc_that_a_symbol_of_the_library_needs() -> None:
    hook = build_hook()
    words = ["objdump", "-p", "-T", str(build.LIBRARY)]
    listing = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"NEEDED +(\S+)", listing)) <= set(hook.GLIBC), "not even the C++ runtime"
    versions = set(re.findall(r"\((\w+_[\w.]+)\)", listing))
    newest = max([(2, 17), *(tuple(map(int, one.removeprefix("GLIBC_").split(".")[:2])) for one in versions)])
    architecture = build.architecture()
    assert hook.platform_tag(build.LIBRARY, architecture) == f"manylinux_{newest[0]}_{newest[1]}_{architecture}"
    assert newest <= (2, 28), "older systems are left out: which symbol needs this?"


def test_a_library_that_needs_more_than_glibc_gets_no_manylinux_tag(tmp_path: Path) -> None:
    hook = build_hook()
    (tmp_path / "a.cpp").write_text(
        "#include <cstdio>\n#include <string>\nstd::string name(int n) { return std::to_string(n); }"
    )
    try:
        compiler = build.find_compiler()
    except build.NoCompilerError as error:
        pytest.skip(str(error))
    words = [compiler, "-shared", "-fPIC", str(tmp_path / "a.cpp"), "-o", str(tmp_path / "a.so")]
    subprocess.run(words, check=True)
    assert not hook.platform_tag(tmp_path / "a.so", build.architecture()).startswith("manylinux")


def build_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("octavo_hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_compiler_the_wheel_is_pure_and_says_so(copied: Path, tmp_path: Path) -> None:
    (copied / "octavo" / "kernels" / "native" / "liboctavo.so").unlink(missing_ok=True)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert "no C++ compiler" in done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize("command", [["serve"], ["generate", "text"], ["serve", "--executor", "native"]])
def test_without_kernels_and_without_torch_a_command_says_what_to_do(
    copied: Path, tmp_path: Path, command: list[str]
) -> None:
    (copied / "octavo" / "kernels" / "native" / "liboctavo.so").unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "octavo.cli.main", *command],
        env=without("torch", source=copied, OCTAVO_CACHE=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: no native kernels (not built; with a C++ compiler, octavo doctor --build-native builds them); "
        "without them serving needs torch: pip install 'octavo[torch]'\n"
    )
    assert not (tmp_path / "cache").exists()
