"""Products of 8-bit matrices: what their checks say, that quantising and multiplying is close to the product, and tiles."""

from __future__ import annotations

import pytest
import torch

import gguf
import octavo.kernels.ops as K
from octavo.kernels.fp8_gemm.checks import quantize_blocks
from octavo.kernels.int4_gemm.checks import dequantize, pack, quantize, unpack
from octavo.kernels.matmul.shapes import ProductShape
from octavo.kernels.matmul.tiles import TILES, Kind, default
from octavo.kernels.matmul.triton import tile_at

SMS = 132


def fp8(*shape):
    return torch.randn(shape).to(torch.float8_e4m3fn)


def int8(*shape):
    return torch.randint(-127, 128, shape, dtype=torch.int8)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: K.quantize_fp8(torch.zeros(2, 8), 48), ValueError, r"group: 48 came, one of 0, 32"),
        (lambda: K.quantize_fp8(torch.zeros(2, 0)), ValueError, r"x: shape \[2, 0\] came"),
        (lambda: K.quantize_int8(torch.zeros(8, 2).T), ValueError, r"x: strides .* call .contiguous"),
        (lambda: K.fp8_gemm(fp8(2, 8), fp8(3, 9), torch.ones(2), torch.ones(3)), ValueError, r"b: shape \[3, 9\]"),
        (lambda: K.fp8_gemm(fp8(2, 8), fp8(3, 8), torch.ones(3), torch.ones(3)), ValueError, r"a_scale: shape \[3\]"),
        (lambda: K.fp8_gemm(fp8(2, 8), fp8(3, 8), torch.ones(2), torch.ones(3, 1)), ValueError, r"b_scale: shape"),
        (
            lambda: K.fp8_gemm(fp8(2, 200), fp8(3, 200), torch.ones(2, 1), torch.ones(1, 2)),
            ValueError,
            r"a_scale: shape",
        ),
        (
            lambda: K.fp8_gemm(fp8(2, 8), fp8(3, 8), torch.ones(2), torch.ones(3), torch.int8),
            TypeError,
            r"dtype: int8",
        ),
        (lambda: K.fp8_gemm(int8(2, 8), fp8(3, 8), torch.ones(2), torch.ones(3)), TypeError, r"a: dtype int8"),
        (
            lambda: K.int8_gemm(int8(2, 8), int8(3, 8), torch.ones(2).double(), torch.ones(3)),
            TypeError,
            r"a_scale: .*float64",
        ),
        (
            lambda: K.int8_gemm(int8(1, 1 << 17), int8(1, 1 << 17), torch.ones(1), torch.ones(1)),
            ValueError,
            r"K = 131072",
        ),
        (lambda: K.int8_gemm(int8(2, 8), int8(3, 8), torch.ones(2), torch.ones(2)), ValueError, r"b_scale: .*row of b"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("group", [0, 128])
def test_quantised_products_are_close_to_the_product(group):
    x, weight = torch.randn(9, 512), torch.randn(130, 512) / 512**0.5
    exact = x.double() @ weight.double().T
    b, b_scale = quantize_blocks(weight) if group else K.quantize_fp8(weight)
    found = K.fp8_gemm(*interleave(K.quantize_fp8(x, group), (b, b_scale)))
    assert (
        found.double() - exact
    ).std() < 0.05 * exact.std()  # each factor has an error of 2^-4 at most, 2.6 % on average
    found = K.int8_gemm(*interleave(K.quantize_int8(x), K.quantize_int8(weight)))
    assert (found.double() - exact).std() < 0.02 * exact.std()


def interleave(a, b):
    return a[0], b[0], a[1], b[1]


def test_a_weight_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"weight: .*not finite"):
        quantize_blocks(torch.full((2, 2), torch.inf))


@pytest.mark.parametrize(("num_m", "num_n", "group"), [(1, 1, 8), (7, 5, 3), (16, 3, 8), (3, 9, 4)])
def test_every_tile_has_its_turn_once(num_m, num_n, group):
    python = tile_at.fn
    turns = [(m, n) for m, n in tiles_in_order(python, num_m, num_n, group)]
    assert sorted(turns) == [(m, n) for m in range(num_m) for n in range(num_n)]


def tiles_in_order(function, num_m, num_n, group):
    """The kernel's own arithmetic, on Python's integers."""
    import types

    plain = types.FunctionType(function.__code__, {"tl": types.SimpleNamespace(minimum=min)})
    return (plain(i, num_m, num_n, group) for i in range(num_m * num_n))


@pytest.mark.parametrize("rows", [1, 16, 17, 64, 65, 256, 1024, 4096])
@pytest.mark.parametrize(
    "kind", [Kind(2, False, True), Kind(2, False, False), Kind(1, True, True), Kind(1, False, False)]
)
def test_default_tiles_are_possible(rows, kind):
    tiles = dict(default(ProductShape(rows, 4096, 4096), kind, SMS).tiles)
    assert tiles["BLOCK_M"] >= min(rows, 64) and 4096 % (tiles["BLOCK_K"] * tiles["SPLITS"]) == 0
    assert tiles["SPLITS"] == 1 or not tiles["DESCRIPTORS"]
    if kind.blocks:
        assert tiles["BLOCK_N"] <= 128 and 128 % tiles["BLOCK_K"] == 0
    if rows > 64:
        assert (tiles["BLOCK_M"], tiles["BLOCK_N"]) in TILES[kind.hopper]


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("size", [1, 16, 17, 128, 300])
def test_what_is_packed_comes_back(group, size):
    q = torch.randint(0, 16, (5, size), dtype=torch.uint8)
    packed = pack(q, group)
    assert packed.shape == (5, -(-size // group) * group // 2)
    assert torch.equal(unpack(packed, size), q)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1"])
def test_blocks_of_gguf_are_groups_of_32_to_the_bit(name):
    """Their bytes are ``packed`` as they are; scales and minima are halves; the values are the gguf library's."""
    weight = torch.randn(6, 160).numpy()
    blocks = torch.from_numpy(gguf.quants.quantize(weight, gguf.GGMLQuantizationType[name])).view(6, 5, -1)
    halves = blocks[:, :, :-16].contiguous().view(torch.float16)
    scale = halves[:, :, 0].contiguous()
    minimum = halves[:, :, 1].contiguous() if name == "Q4_1" else -8 * scale
    packed = blocks[:, :, -16:].flatten(1).contiguous()
    exact = gguf.quants.dequantize(blocks.flatten(1).numpy(), gguf.GGMLQuantizationType[name])
    assert torch.equal(dequantize(packed, scale.double(), minimum.double(), 160, 32).float(), torch.from_numpy(exact))
    x = torch.randn(3, 160, dtype=torch.float16)
    found = K.int4_gemm(x, packed, scale, minimum, 32)
    torch.testing.assert_close(found.double(), x.double() @ torch.from_numpy(exact).double().T, rtol=1e-2, atol=2e-2)


def int4(rows=3, group=32, size=64):
    return [torch.randn(2, size).bfloat16(), *quantize(torch.randn(rows, size), group), group]


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, torch.zeros(2, 65).bfloat16(), r"packed: shape \[3, 32\] came, \[\*, 48\]"),
        (1, torch.zeros(3, 31, dtype=torch.uint8), r"packed: shape"),
        (2, torch.zeros(3, 1).half(), r"scale: shape \[3, 1\] came, \[3, 2\]"),
        (3, torch.zeros(2, 2).half(), r"minimum: shape"),
        (3, torch.zeros(3, 2), r"minimum: dtype float32 came, float16"),
        (4, 48, r"group: 48 came, 32, 64 or 128"),
    ],
)
def test_a_4_bit_weight_that_does_not_fit_is_named(place, value, words):
    arguments = int4()
    arguments[place] = value
    with pytest.raises((TypeError, ValueError), match=words):
        K.int4_gemm(*arguments)


def test_only_four_bits_are_packed():
    with pytest.raises(ValueError, match=r"q: .*0\.\.15"):
        pack(torch.tensor([[16]]), 32)
