"""The 8-bit floats of the Triton kernels, bit by bit against torch's."""

from __future__ import annotations

import pytest
import torch

triton = pytest.importorskip("triton")
tl = triton.language

from octavo.kernels.gpu.triton import INTERPRETED, from_e4m3, to_e4m3  # noqa: E402

pytestmark = pytest.mark.skipif(not INTERPRETED.value, reason="on a GPU the cases of the operations prove it")


@triton.jit
def _decode(bits, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, from_e4m3(tl.load(bits + at), NATIVE=False))


@triton.jit
def _encode(x, bits, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(bits + at, to_e4m3(tl.load(x + at)))


def test_every_bit_pattern_is_decoded_exactly():
    bits, out = torch.arange(256, dtype=torch.uint8), torch.empty(256, dtype=torch.float16)
    _decode[(1,)](bits, out, BLOCK=256)
    torch.testing.assert_close(out, bits.view(torch.float8_e4m3fn).half(), rtol=0, atol=0, equal_nan=True)


def test_encoding_rounds_to_nearest_even_and_saturates():
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    values = values[values.isfinite()].sort().values
    middles = (values[1:] + values[:-1]) / 2  # the ties
    near = [torch.nextafter(middles, torch.full_like(middles, end)) for end in (-1e9, 1e9)]
    wide = torch.randn(3000) * torch.exp(4 * torch.randn(3000))
    x = torch.cat(
        [values, middles, *near, wide, torch.tensor([0.0, -0.0, 1e-30, 448, 449, 464, 1e30, -1e9, torch.inf])]
    )
    x = torch.cat([x, torch.tensor([torch.nan]).expand(8192 - len(x))])
    bits = torch.empty(8192, dtype=torch.uint8)
    _encode[(1,)](x, bits, BLOCK=8192)
    got, wanted = bits.view(torch.float8_e4m3fn).float(), x.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(got.signbit()[: len(values)], wanted.signbit()[: len(values)])
