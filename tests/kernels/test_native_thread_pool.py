"""Stress test of the native thread pool by a C++ program, as it is and under the thread sanitizer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from octavo.kernels.native.build import NoCompilerError, build_program, find_compiler

SOURCE = Path(__file__).parents[1] / "support" / "native_thread_pool.cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    try:
        find_compiler()
    except NoCompilerError as error:
        pytest.skip(str(error))

    def build(*flags: str) -> Path:
        return build_program(SOURCE, tmp_path_factory.mktemp("pool") / "native_thread_pool", flags)

    return build


def run(program: Path, *arguments: object) -> None:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "thread pool: all held\n"), done.stderr


def test_every_thread_sees_the_others_writes_and_sleepers_wake(
    program: Callable[..., Path], pytestconfig: pytest.Config
) -> None:
    built, rounds = program(), 1000 if pytestconfig.option.exhaustive else 250
    for threads in (1, 2, 3, 5):  # more than the cores of a small machine: a barrier must not wait for its own waiter
        run(built, threads, rounds)


def test_the_thread_sanitizer_finds_no_race(program: Callable[..., Path], pytestconfig: pytest.Config) -> None:
    try:
        built = program("-fsanitize=thread", "-g", "-O1")
    except RuntimeError as error:
        if "tsan" in str(error):
            pytest.skip("this compiler has no thread sanitizer")
        raise
    for threads in (2, 4):
        run(built, threads, 500 if pytestconfig.option.exhaustive else 150)
