"""Native linear kernels: every weight format and instruction set against float64; a row's bits are the same in any batch."""

from __future__ import annotations

import ctypes as c
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import product as combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.kernels.native import build as builder
from octavo.kernels.native import library
from octavo.kernels.native.structs import GROUP, TILE, Format, ScaleType
from support.native_library import isas, needs_native
from support.native_matrices import KINDS, LARGEST, SHAPES, Weight, assert_close, product, quantized, random_weight

pytestmark = needs_native


# Kernels of instruction sets that this CPU may lack, over emulated instructions; with what they are compiled.
EMULATED = {"avx512-emulated": ("-DEMULATED_AVX512",)}
if "avx2" in isas():
    EMULATED["avxvnni-emulated"] = ("-DEMULATED_AVXVNNI", *builder.AVX2)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The table of kernels by a name of ``EMULATED``."""

    @cache
    def compiled(name: str) -> Any:
        made, source = (
            tmp_path_factory.mktemp("emulated") / f"{name}.so",
            Path(__file__).parents[1] / "support" / "native_emulated.cpp",
        )
        flags = [*(flag for flag in builder.FLAGS if flag != "-O3"), "-shared", f"-I{builder.KERNELS}", *EMULATED[name]]
        subprocess.run([builder.find_compiler(), *flags, str(source), "-o", str(made)], check=True)
        function = c.CDLL(str(made)).emulated_table
        function.restype = c.c_void_p
        return c.c_void_p(function())

    return compiled


@pytest.fixture(params=[*isas(), *EMULATED])
def table(request: pytest.FixtureRequest, emulated: Callable[[str], Any]) -> Any:
    return emulated(request.param) if request.param in EMULATED else library.kernel_table(request.param)


@pytest.mark.parametrize("num_rows,n,k", SHAPES)
@pytest.mark.parametrize("kind,scales_per_group", KINDS)
def test_matches_float64(table: Any, kind: Format, scales_per_group: int, num_rows: int, n: int, k: int) -> None:
    rng = np.random.default_rng(num_rows * 1000 + n)
    rows = quantized(table, rng.standard_normal((num_rows, k)) * np.exp(rng.standard_normal((num_rows, 1)) * 4))
    for scale_type in ScaleType:
        weight = random_weight(rng, kind, n, k, scales_per_group, scale_type)
        assert_close(product(table, weight, rows), weight, rows)


@pytest.mark.parametrize("kind,scales_per_group", KINDS)
def test_bias_and_residual(table: Any, kind: Format, scales_per_group: int) -> None:
    rng = np.random.default_rng(5)
    for num_rows in (1, 9):
        rows = quantized(table, rng.standard_normal((num_rows, 100)))
        weight = random_weight(rng, kind, 48, 100, scales_per_group)
        weight.bias = rng.standard_normal(48).astype(np.float32)
        onto = rng.standard_normal((num_rows, 48)).astype(np.float32)
        assert_close(product(table, weight, rows), weight, rows)
        assert_close(product(table, weight, rows, onto=onto), weight, rows, onto)


@pytest.mark.parametrize("kind,scales_per_group", KINDS)
def test_a_row_is_the_same_bits_in_any_batch(table: Any, kind: Format, scales_per_group: int) -> None:
    rng = np.random.default_rng(7)
    k, most = 17 * GROUP + 5, 67  # more groups than are unpacked at once, more rows than are taken at once
    weight, rows = (
        random_weight(rng, kind, 5 * TILE, k, scales_per_group, ScaleType.F16),
        quantized(table, rng.standard_normal((most, k))),
    )
    alone = np.concatenate([product(table, weight, rows, (i, i + 1)) for i in range(most)])
    for num_rows in range(1, most + 1):
        first = (most - num_rows) // 2
        together = product(table, weight, rows, (first, first + num_rows))
        assert np.array_equal(together, alone[first : first + num_rows]), num_rows
    for first, last in combinations(range(5), range(1, 6)):
        if first < last:
            part = product(table, weight, rows, (3, 12), (first, last))
            assert np.array_equal(part, alone[3:12, first * TILE : last * TILE])


@pytest.mark.skipif("avx2" not in isas(), reason="this CPU does not run avx2")
@pytest.mark.parametrize("kind,scales_per_group", KINDS)
@pytest.mark.parametrize("name", EMULATED)
def test_every_width_of_a_register_gives_the_same_bits(
    emulated: Callable[[str], Any], name: str, kind: Format, scales_per_group: int
) -> None:
    rng = np.random.default_rng(17)
    avx2, other = library.kernel_table("avx2"), emulated(name)
    for num_rows, n, k in ((1, 16, 31), (3, 70, 700), (37, 40, 200)):
        x = rng.standard_normal((num_rows, k))
        rows, others = quantized(avx2, x), quantized(other, x)
        for name in ("q", "scales", "sums", "sums_of_16", "offsets", "floats"):
            assert np.array_equal(getattr(rows, name), getattr(others, name)), name
        weight = random_weight(rng, kind, n, k, scales_per_group, ScaleType.F16)
        assert np.array_equal(product(avx2, weight, rows), product(other, weight, rows))


@pytest.mark.parametrize("kind,scales_per_group", [pair for pair in KINDS if pair[0] in LARGEST])
@pytest.mark.parametrize("num_rows", [1, 4, 9])
def test_the_largest_integers_do_not_overflow(table: Any, kind: Format, scales_per_group: int, num_rows: int) -> None:
    lowest = -128 if kind == Format.Q8 else 0
    shape = (TILE, 4 * GROUP)
    for fill in (lowest, LARGEST[kind]):
        q = np.full(shape, fill, np.int8 if kind == Format.Q8 else np.uint8)
        ones, zeros = (
            np.ones((TILE, 4 * scales_per_group), np.float32),
            np.zeros((TILE, 4 * scales_per_group), np.float32),
        )
        weight = Weight(kind, TILE, shape[1], q, ones, None if kind == Format.Q8 else zeros)
        for sign in (1, -1):
            rows = quantized(table, np.full((num_rows, shape[1]), 127.0 * sign))
            assert (product(table, weight, rows) == fill * 127.0 * sign * shape[1]).all()


@pytest.mark.parametrize("kind,scales_per_group", KINDS)
def test_unpack_row_is_exact(table: Any, kind: Format, scales_per_group: int) -> None:
    rng = np.random.default_rng(11)
    for scale_type in ScaleType:
        weight = random_weight(rng, kind, 37, 75, scales_per_group, scale_type)
        packed, expected = weight.packed(), weight.dequantized()
        for n in (0, 15, 16, 36):
            out = np.full(80, np.nan, np.float32)
            library.load().octavo_unpack_row(table, c.byref(packed), c.c_int(n), c.c_void_p(out.ctypes.data))
            assert np.isnan(out[75:]).all()
            bound = 2.0**-23 * (np.abs(expected[n, :75]) + (4 if weight.min is not None else 0))
            assert (np.abs(out[:75] - expected[n, :75]) <= bound).all()


def test_quantize_rounds_to_the_nearest(table: Any) -> None:
    rng = np.random.default_rng(13)
    for k in (1, 31, 32, 33, 576, 1000):
        x = (rng.standard_normal((3, k)) * np.exp(rng.standard_normal((3, 1)) * 10)).astype(np.float32)
        rows = quantized(table, x)
        padded = np.zeros(rows.q.shape, np.float32)
        padded[:, :k] = x
        groups = padded.reshape(3, -1, GROUP)
        most = np.abs(groups).max(axis=2)
        scale = most / np.float32(127)
        q = np.rint(groups * (np.float32(127) / most)[:, :, None])
        assert np.array_equal(rows.q, q.reshape(3, -1).astype(np.int8)) and np.abs(q).max() == 127
        assert np.array_equal(rows.scales, scale) and np.array_equal(rows.floats, padded)
        assert np.array_equal(rows.sums, scale * q.sum(axis=2))
        assert np.array_equal(rows.offsets, -128 * q.sum(axis=2))
        sums = q.reshape(3, -1, 2, GROUP // 2).sum(axis=3) * scale[:, :, None]
        assert np.array_equal(rows.sums_of_16, sums.reshape(3, -1).astype(np.float32))


def test_quantize_of_what_has_no_scale(table: Any) -> None:
    x = np.ones((1, 6 * GROUP), np.float32)
    x[0, :GROUP], x[0, GROUP : 2 * GROUP] = 0, 1e-38
    x[0, 2 * GROUP + 7], x[0, 3 * GROUP + 31], x[0, 4 * GROUP] = np.nan, np.inf, -np.inf
    rows = quantized(table, x)
    assert (rows.q[0, : 5 * GROUP] == 0).all() and (rows.q[0, 5 * GROUP :] == 127).all()
    assert (rows.scales[0, :2] == 0).all() and (rows.sums[0, :2] == 0).all() and (rows.sums_of_16[0, :4] == 0).all()
    assert np.isnan(rows.scales[0, 2:5]).all(), "a value that is not finite must show in the result"
    ties = np.arange(-16, 16, dtype=np.float32)[None] + 0.5
    ties[0, 0] = 127
    assert np.array_equal(quantized(table, ties).q, np.rint(ties).astype(np.int8))
