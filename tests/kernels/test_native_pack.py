"""Weight packing for the native kernels: lossless for every block type, quantization error of floats, refusal of bad bytes."""

from __future__ import annotations

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize

from octavo.errors import UnsupportedModelError, WeightFormatError
from octavo.kernels.native.matrix import (
    BLOCK_FORMATS,
    MatrixSpec,
    PackedMatrix,
    ScaleRangeError,
    rows_of_tiles,
    stored_spec,
    tile_chunks,
)
from octavo.kernels.native.structs import Format, ScaleType
from support.gguf_files import random_blocks
from support.native_library import needs_native
from support.native_reference import Unpacked, unpack

pytestmark = needs_native
SHAPES = [(1, 256), (16, 512), (37, 256), (50, 1024)]


def poisoned(spec: MatrixSpec) -> PackedMatrix:
    matrix = PackedMatrix(spec)
    matrix.memory[:] = 0xFF
    return matrix


def packed(kind: Q, raw: np.ndarray, spec: MatrixSpec) -> PackedMatrix:
    """In several pieces, the last tiles first."""
    matrix = poisoned(spec)
    for first, last in reversed(tile_chunks(spec, raw.shape[1], raw.shape[1] * 20)):
        start, stop = rows_of_tiles(spec, first, last)
        matrix.pack(kind.name, raw[start:stop], first, last)
    return matrix


def assert_padding_is_zero(got: Unpacked, n: int, k: int) -> None:
    assert not got.q[n:].any() and not got.q[:, k:].any() and not got.scale[n:, :].any() * (n % 16)
    assert not got.min[n:].any()


# --- block types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("wide", [False, True])
def test_block_types_keep_their_values(name: str, n: int, k: int, wide: bool) -> None:
    """scale * q + min, worked out in float64, is within one float32 rounding of each of the library's steps."""
    kind = Q[name]
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    raw = random_blocks(kind, n * k // block_elements, seed=n + k).reshape(n, k // block_elements * block_bytes)
    spec = stored_spec(name, n, k, wide_scales=wide)
    got = unpack(packed(kind, raw, spec))
    assert_padding_is_zero(got, n, k)
    expected = dequantize(raw, kind)
    exact = got.weights(n, k)
    width = got.q.shape[1] // got.scale.shape[1]
    bound = np.abs(np.repeat(got.scale, width, 1) * got.q)[:n, :k] + np.abs(np.repeat(got.min, width, 1))[:n, :k]
    assert (np.abs(exact - expected) <= bound * 2.0**-24).all()
    if "K" not in name and name != "Q8_0":  # what the file's own scale and min are
        scale = raw.reshape(-1, block_bytes)[:, :2].copy().view(np.float16).reshape(n, -1)
        np.testing.assert_array_equal(got.scale[:n], scale.astype(np.float32))


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_what_the_library_quantized_comes_out_the_same(name: str) -> None:
    rng = np.random.default_rng(3)
    raw = quantize(rng.normal(0, 0.05, (45, 96)).astype(np.float32), Q[name])
    got = unpack(packed(Q[name], raw, stored_spec(name, 45, 96)))
    np.testing.assert_allclose(got.weights(45, 96), dequantize(raw, Q[name]), rtol=0, atol=1e-8)


def test_k_quant_scales_are_the_librarys_products() -> None:
    """Of one superblock with known 6-bit scales and mins."""
    raw = random_blocks(Q.Q4_K, 3, seed=5)
    got = unpack(packed(Q.Q4_K, raw.reshape(1, -1), stored_spec("Q4_K", 1, 768)))
    from gguf.quants import Q4_K

    d, low = (raw[:, start : start + 2].copy().view(np.float16).astype(np.float32) for start in (0, 2))
    sixes, mins = Q4_K.get_scale_min(raw[:, 4:16])
    np.testing.assert_array_equal(got.scale[0], (d * sixes.astype(np.float32)).reshape(-1))
    np.testing.assert_array_equal(got.min[0], -(low * mins.astype(np.float32)).reshape(-1))


@pytest.mark.parametrize("name", ["Q4_0", "Q5_0"])
def test_scales_beyond_float16_need_float32(name: str) -> None:
    raw = random_blocks(Q[name], 4).reshape(2, -1)
    raw[0, :2] = np.array([9000], np.float16).view(np.uint8)
    with pytest.raises(ScaleRangeError):
        packed(Q[name], raw, stored_spec(name, 2, 64))
    got = unpack(packed(Q[name], raw, stored_spec(name, 2, 64, wide_scales=True)))
    np.testing.assert_array_equal(got.weights(2, 64), dequantize(raw, Q[name]).astype(np.float64))


def test_subnormal_and_negative_scales_survive() -> None:
    float16_bits = np.array([0x0001, 0x8001, 0x03FF, 0x0400, 0x8000, 0x0000, 0x7BFF, 0xFBFF], np.uint16)
    raw = random_blocks(Q.Q8_0, 8)
    raw[:, :2] = float16_bits.view(np.uint8).reshape(-1, 2)
    got = unpack(packed(Q.Q8_0, raw, stored_spec("Q8_0", 8, 32)))
    np.testing.assert_array_equal(got.scale[:8, 0], float16_bits.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(got.weights(8, 32), dequantize(raw, Q.Q8_0).astype(np.float64))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_scales_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    raw = random_blocks(Q[name], 5)
    start = 208 if name == "Q6_K" else 0
    raw[3, start : start + 2] = np.array([bad], np.float16).view(np.uint8)
    with pytest.raises(WeightFormatError, match="not finite"):
        packed(Q[name], raw, stored_spec(name, 5, GGML_QUANT_SIZES[Q[name]][0]))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("kind", [None, Format.Q8, Format.U4])
def test_weights_that_are_not_finite_are_refused(name: str, kind: Format | None) -> None:
    values = np.zeros((20, 40), np.float32)
    values[17, 39] = np.nan
    spec = stored_spec(name, 20, 40) if kind is None else MatrixSpec(kind, ScaleType.F16, 20, 40)
    raw = float_rows(values, name)
    with pytest.raises(WeightFormatError, match="not finite"):
        packed(Q[name], raw, spec)


def test_bytes_that_do_not_fit_are_refused_before_any_is_read() -> None:
    matrix = PackedMatrix(stored_spec("Q4_1", 33, 64))
    raw = random_blocks(Q.Q4_1, 66).reshape(33, -1)
    for rows, first, last in ((raw[:-1], 0, 3), (raw, 0, 2), (raw, 1, 3), (raw, 2, 4), (raw[:0], 1, 1), (raw, -1, 2)):
        with pytest.raises(ValueError, match="are not tiles"):
            matrix.pack("Q4_1", rows, first, last)
    for other in ("Q4_K", "Q8_0", "F32"):
        with pytest.raises(ValueError, match="are not tiles"):
            matrix.pack(other, raw)


def test_a_type_without_a_format_says_so() -> None:
    with pytest.raises(UnsupportedModelError, match="IQ4_NL"):
        stored_spec("IQ4_NL", 32, 32)


# --- floats -----------------------------------------------------------------------------------------------------------


def float_rows(values: np.ndarray, name: str) -> np.ndarray:
    """The stored bytes, ``uint8 [n, bytes of a row]``."""
    if name == "F32":
        stored = values
    elif name == "F16":
        stored = values.astype(np.float16)
    else:
        stored = (values.view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(stored).view(np.uint8).reshape(len(values), -1)


def stored_values(raw: np.ndarray, name: str) -> np.ndarray:
    if name == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return raw.view(np.float32 if name == "F32" else np.float16).astype(np.float32)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 32), (33, 47), (70, 100)])
def test_floats_are_kept(name: str, n: int, k: int) -> None:
    raw = float_rows(np.random.default_rng(n).normal(0, 1, (n, k)).astype(np.float32), name)
    got = unpack(packed(Q[name], raw, stored_spec(name, n, k)))
    np.testing.assert_array_equal(got.weights(n, k), stored_values(raw, name).astype(np.float64))
    assert not got.q[n:].any() and not got.q[:, k:].any()


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("scale_type", ScaleType)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 32), (33, 47), (70, 100)])
def test_eight_bits_are_within_half_a_step(name: str, scale_type: ScaleType, n: int, k: int) -> None:
    raw = float_rows(np.random.default_rng(n).normal(0, 0.1, (n, k)).astype(np.float32), name)
    got = unpack(packed(Q[name], raw, MatrixSpec(Format.Q8, scale_type, n, k)))
    assert_padding_is_zero(got, n, k)
    error = np.abs(got.weights(n, k) - stored_values(raw, name))
    step = np.repeat(got.scale, 32, axis=1)[:n, :k]
    assert (error <= step * 0.57).all()  # rounding a scale down to float16 clips the largest by up to 0.063 of a step
    assert np.abs(got.q).max() == 127


@pytest.mark.parametrize("scale_type", ScaleType)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 32), (33, 47), (70, 160)])
def test_four_bits_are_no_worse_than_the_plain_grid(scale_type: ScaleType, n: int, k: int) -> None:
    """The plain grid: from the lowest to the highest of each group in 15 equal steps, unrounded; Q4_1's way."""
    values = np.random.default_rng(n).normal(0.02, 0.1, (n, k)).astype(np.float32)
    got = unpack(packed(Q.F32, float_rows(values, "F32"), MatrixSpec(Format.U4, scale_type, n, k)))
    assert got.q.max() <= 15 and not got.q[n:].any() and not got.q[:, k:].any()
    error, plain = got.weights(n, k) - values, np.zeros((n, k))
    for start in range(0, k, 32):
        group = values[:, start : start + 32]
        low, high = group.min(1, keepdims=True), group.max(1, keepdims=True)
        step = np.where(high > low, (high - low) / 15, 1)
        plain[:, start : start + 32] = low + np.rint((group - low) / step) * step - group
    squares, plain_squares = np.square(error).sum(), np.square(plain).sum()
    if k >= 32:
        assert squares < 0.9 * plain_squares
    else:
        assert squares < 1e-6


def test_groups_of_one_value_and_of_tiny_values() -> None:
    tiny = ([1e-9] * 31 + [-2e-9], [6e-8] * 31 + [-1e-7], [1e-40] * 31 + [-3e-40])
    values = np.array([[0.0] * 32, [0.25] * 32, [-3.0] * 32, *tiny], np.float32)
    for kind in (Format.Q8, Format.U4):
        for scale_type in ScaleType:
            got = unpack(packed(Q.F32, float_rows(values, "F32"), MatrixSpec(kind, scale_type, 6, 32)))
            floor = 2.0**-24 if scale_type == ScaleType.F16 else 1e-37  # what float16 or float32 resolves
            error, largest = np.abs(got.weights(6, 32) - values).max(axis=1), np.abs(values).max(axis=1)
            assert (error <= largest / (250 if kind == Format.Q8 else 20) + floor).all()
            if kind == Format.U4:
                assert not error[:3].any()


def test_floats_beyond_half_precision_scales_need_wide_ones() -> None:
    values = np.full((2, 32), 1e9, np.float32)
    values[0, :7] = -2e9
    for kind in (Format.Q8, Format.U4):
        with pytest.raises(ScaleRangeError):
            packed(Q.F32, float_rows(values, "F32"), MatrixSpec(kind, ScaleType.F16, 2, 32))
        got = unpack(packed(Q.F32, float_rows(values, "F32"), MatrixSpec(kind, ScaleType.F32, 2, 32)))
        assert np.abs(got.weights(2, 32) - values).max() <= 1e8
