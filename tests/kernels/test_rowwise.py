"""linear, rms_norm, rotary and the gated activation against their float64 references."""

from __future__ import annotations

import pytest
import torch

from octavo.kernels.linear.cpu import linear
from octavo.kernels.linear.reference import linear_reference
from octavo.kernels.rms_norm.cpu import rms_norm
from octavo.kernels.rms_norm.reference import rms_norm_reference
from octavo.kernels.rotary.angles import RotaryAngles, WideAngles
from octavo.kernels.rotary.cpu import rotate
from octavo.kernels.rotary.reference import rotary_reference
from octavo.kernels.silu_mul.cpu import silu_mul
from octavo.kernels.silu_mul.reference import silu_mul_reference

TOLERANCE = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@DTYPES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 13, 15, 16, 17, 37, 95, 96, 130])
@pytest.mark.parametrize(("outputs", "inputs"), [(5, 3), (64, 48), (33, 129)])
def test_linear(rows, outputs, inputs, bias, dtype):
    x, weight = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype) / inputs**0.5
    shift = torch.randn(outputs, dtype=dtype) if bias else None
    got = linear(x, weight, shift)
    assert got.dtype == dtype and got.is_contiguous()
    torch.testing.assert_close(got.double(), linear_reference(x, weight, shift), **TOLERANCE[dtype])


@pytest.mark.parametrize("rows", [1, 12])
def test_linear_with_a_large_matrix(rows):
    x, weight, shift = torch.randn(rows, 1024), torch.randn(1030, 1024) / 32, torch.randn(1030)
    got = linear(x, weight, shift)
    assert got.is_contiguous()
    torch.testing.assert_close(got.double(), linear_reference(x, weight, shift), **TOLERANCE[torch.float32])


def test_linear_takes_strided_rows_and_no_rows():
    x, weight = torch.randn(20, 9)[::2, 1:], torch.randn(6, 8)
    torch.testing.assert_close(linear(x, weight).double(), linear_reference(x, weight), rtol=1e-5, atol=1e-5)
    assert linear(torch.empty(0, 8), weight).shape == (0, 6)


@DTYPES
@pytest.mark.parametrize("shape", [(1, 5), (7, 64), (37, 48), (0, 8)])
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_rms_norm(shape, eps, dtype):
    x, weight = torch.randn(shape, dtype=dtype) * 3, torch.randn(shape[-1], dtype=dtype)
    got = rms_norm(x, weight, eps)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), rms_norm_reference(x, weight, eps), **TOLERANCE[dtype])
    torch.testing.assert_close(rms_norm(torch.zeros_like(x), weight, eps), torch.zeros_like(x))


@DTYPES
def test_rms_norm_with_a_weight_per_head(dtype):
    x, weight = torch.randn(7, 10, 16, dtype=dtype)[:, :6], torch.randn(6, 16, dtype=dtype)
    before = x.clone()
    got = rms_norm(x, weight, 1e-6)
    torch.testing.assert_close(got.double(), rms_norm_reference(x, weight, 1e-6), **TOLERANCE[dtype])
    torch.testing.assert_close(x, before, rtol=0, atol=0)


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 3, 8), (37, 4, 64)])
def test_rotary(shape, dtype):
    x, inv_freq = torch.randn(shape, dtype=dtype), torch.rand(shape[2] // 2)
    positions = torch.randint(0, 500, (shape[0],))
    angles = RotaryAngles.at(positions, inv_freq)
    got = rotate(x, WideAngles.of(angles, dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), rotary_reference(x, *angles), **TOLERANCE[dtype])


def test_rotary_leaves_position_zero_and_lengths_alone():
    x, inv_freq = torch.randn(6, 2, 8), torch.rand(4)

    def rotated(positions):
        return rotate(x, WideAngles.of(RotaryAngles.at(positions, inv_freq), x.dtype))

    torch.testing.assert_close(rotated(torch.zeros(6, dtype=torch.long)), x)
    torch.testing.assert_close(rotated(torch.arange(6) * 1000).norm(dim=-1), x.norm(dim=-1))


@DTYPES
@pytest.mark.parametrize("act", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("shape", [(1, 2), (3, 14), (37, 160), (0, 6)])
def test_silu_mul(shape, act, dtype):
    x = torch.randn(shape, dtype=dtype) * 3
    before = x.clone()
    got = silu_mul(x, act)
    assert got.dtype == dtype and got.is_contiguous()
    torch.testing.assert_close(got.double(), silu_mul_reference(x, act), rtol=2e-2, atol=TOLERANCE[dtype]["atol"])
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_unknown_activation():
    with pytest.raises(ValueError, match="relu"):
        silu_mul(torch.randn(1, 4), "relu")
