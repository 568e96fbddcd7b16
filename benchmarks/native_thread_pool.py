"""Benchmark of the native thread pool: a barrier, a run, a wake-up. `python benchmarks/native_thread_pool.py [threads ...]`

A step of a 30-layer model has some 200 barriers; compare their nanoseconds with the milliseconds of the step.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from octavo.hardware import detect
from octavo.kernels.native.build import build_program


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = build_program(Path(__file__).with_suffix(".cpp"), Path(folder) / "native_thread_pool")
        for threads in arguments or ["1", str(detect().num_cores)]:
            subprocess.run([program, threads], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
