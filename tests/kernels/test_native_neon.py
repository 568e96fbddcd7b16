"""NEON kernels cross-compiled for ARM and run under qemu, against float64; the whole library compiles for ARM."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from octavo.kernels.native import build, library
from octavo.kernels.native.structs import GROUP, TILE, Format, ScaleType
from support.native_library import isas
from support.native_matrices import KINDS, SHAPES, Rows, Weight, assert_close, quantized, random_weight

COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
pytestmark = [
    pytest.mark.skipif(not COMPILER, reason="no aarch64-linux-gnu-g++ (Debian: g++-aarch64-linux-gnu)"),
    pytest.mark.skipif(not isas(), reason="no native library"),
]
FLAGS = (*(flag for flag in build.FLAGS if flag != "-O3"), f"-I{build.KERNELS}")


def compiled(*words: object) -> None:
    done = subprocess.run([str(COMPILER), *FLAGS, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def case(weight: Weight, x: np.ndarray) -> bytes:
    """As native_neon.cpp reads it."""
    packed = weight.packed()
    elements, scales, mins, _ = weight.parts
    size = (
        packed.format,
        packed.scale_type,
        packed.n,
        packed.k,
        packed.num_tiles,
        packed.num_groups,
        packed.scales_per_group,
    )
    made = np.array([*size, scales.size > 0, len(x)], np.int32).tobytes()
    for part in (elements, scales, mins):
        made += np.int64(part.nbytes).tobytes() + part.tobytes()
    return made + x.tobytes()


class Output:
    """What native_neon.cpp wrote, read array by array."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, dtype: type, *shape: int) -> np.ndarray:
        found = np.frombuffer(self._data, dtype, int(np.prod(shape)), self._at).reshape(shape)
        self._at += found.nbytes
        return found

    @property
    def is_read(self) -> bool:
        return self._at == len(self._data)


@pytest.mark.skipif(not EMULATOR, reason="no qemu-aarch64 (Debian: qemu-user)")
def test_products_match_float64(tmp_path: Path) -> None:
    """Every format and odd shape; the program itself compares each row alone with the row among others, bit for bit."""
    program, source = tmp_path / "neon", Path(__file__).parents[1] / "support" / "native_neon.cpp"
    compiled("-O1", *build.ISAS["neon"][1], "-static", source, "-o", program)
    rng = np.random.default_rng(19)
    cases: list[tuple[Weight, np.ndarray]] = []
    for (kind, scales_per_group), (num_rows, n, k), scale_type in itertools.product(KINDS, SHAPES, ScaleType):
        spread = np.exp(rng.standard_normal((num_rows, 1)) * 4)
        x = (rng.standard_normal((num_rows, k)) * spread).astype(np.float32)
        cases.append((random_weight(rng, kind, n, k, scales_per_group, scale_type), x))
    asked = b"".join(case(weight, x) for weight, x in cases)
    done = subprocess.run([str(EMULATOR), str(program)], input=asked, capture_output=True, check=False, timeout=150)
    assert done.returncode == 0, f"{done.returncode}: 4 means that a row's bits depend on its batch; {done.stderr!r}"
    output, portable = Output(done.stdout), library.kernel_table("portable")
    for weight, x in cases:
        rows, wanted = Rows(*x.shape), quantized(portable, x)
        num_rows, groups = len(x), -(-weight.k // GROUP)
        rows.q = output.take(np.int8, num_rows, groups * GROUP)
        rows.scales, rows.sums = (output.take(np.float32, num_rows, groups) for _ in range(2))
        rows.sums_of_16 = output.take(np.float32, num_rows, groups * 2)
        rows.offsets = output.take(np.int32, num_rows, groups)
        rows.floats = output.take(np.float32, num_rows, groups * GROUP)
        for name in ("q", "scales", "sums", "sums_of_16", "offsets", "floats"):
            assert np.array_equal(getattr(rows, name), getattr(wanted, name)), name
        assert_close(output.take(np.float32, num_rows, len(weight.q) // TILE * TILE), weight, rows)
        unpacked, expected = output.take(np.float32, weight.n, weight.k), weight.dequantized()[: weight.n, : weight.k]
        bound = 2.0**-23 * (np.abs(expected) + (4 if weight.min is not None else 0))
        assert (np.abs(unpacked - expected) <= bound).all()
    assert output.is_read
    assert {weight.format for weight, _ in cases} == set(Format)


def test_the_library_compiles_for_arm(tmp_path: Path) -> None:
    """Every source of a library for ARM, whose names resolve when it is linked."""
    baseline, objects = build.BASELINE["aarch64"], []
    for source in sorted(build.KERNELS.rglob("native/*.cpp")):
        isa = source.stem.removeprefix("isa_")
        if isa in build.ISAS and build.ISAS[isa][0] != "aarch64":
            continue
        flags = build.ISAS[isa][1] if isa in build.ISAS else baseline
        objects.append(tmp_path / f"{len(objects)}.o")
        compiled("-O0", *flags, "-DOCTAVO_WITH_NEON", "-c", source, "-o", objects[-1])
    compiled("-shared", "-Wl,--no-undefined", *objects, "-o", tmp_path / "library.so", "-lpthread")
