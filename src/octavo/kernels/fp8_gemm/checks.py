"""Argument checks and meta kernel of ``fp8_gemm``: e4m3 product with scales; ``b`` holds a row per output.

    rows:    out[m, n] = a_scale[m] * b_scale[n] * sum_k a[m, k] * b[n, k]
    blocks:  out[m, n] = sum_g a_scale[m, g] * b_scale[n // 128, g] * sum_{k in group g} a[m, k] * b[n, k],  128 of K to a group

The first is what ``quantize_fp8(x)`` gives for tokens and for a weight's outputs; the second is DeepSeek-V3's: ``quantize_fp8(x,
128)`` for tokens, ``quantize_blocks`` for the weight. Sums are float32. A Hopper tensor core keeps about 14 bits of a running sum
of e4m3 products; with blocks each group's sum is promoted to float32 and added there, with rows it runs over all of K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.arguments import expect_output, expect_same, expect_shape, expect_tensor, expect_value
from octavo.kernels.quantize_fp8.checks import DTYPE, LARGEST

BLOCK = 128


def check(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> None:
    """``a``: e4m3 ``[M, K]``, ``b``: e4m3 ``[N, K]``; scales float32, ``[M]`` and ``[N]``, or ``[M, ceil(K / 128)]`` and
    ``[ceil(N / 128), ceil(K / 128)]``; ``dtype``: of the result, bfloat16 by default."""
    expect_tensor("a", a, (DTYPE,))
    expect_tensor("b", b, (DTYPE,))
    expect_value("a", a.dim() == 2, f"shape {list(a.shape)}", "[M, K]")
    expect_shape("b", b, (None, a.shape[1]), "[N, K] with the K of a")
    for name, scale in (("a_scale", a_scale), ("b_scale", b_scale)):
        expect_tensor(name, scale, (torch.float32,))
    expect_value("a_scale", a_scale.dim() in (1, 2), f"{a_scale.dim()} dimensions", "[M], or [M, groups of 128]")
    groups = -(-a.shape[1] // BLOCK)
    if a_scale.dim() == 1:
        expect_shape("a_scale", a_scale, (a.shape[0],), "one for each row of a")
        expect_shape("b_scale", b_scale, (b.shape[0],), "one for each row of b, as a_scale has one for each row of a")
    else:
        expect_shape("a_scale", a_scale, (a.shape[0], groups), "[M, ceil(K / 128)]")
        expect_shape("b_scale", b_scale, (-(-b.shape[0] // BLOCK), groups), "[ceil(N / 128), ceil(K / 128)]")
    for name, other in (("b", b), ("a_scale", a_scale), ("b_scale", b_scale)):
        expect_same(name, other, "a", a, dtype=False)
    expect_output(dtype)


def meta(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``[M, N]`` of ``dtype``."""
    return a.new_empty((a.shape[0], b.shape[0]), dtype=dtype or torch.bfloat16)


def quantize_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight ``[N, K]`` in blocks of 128 x 128 -> e4m3 ``[N, K]``, float32 scales ``[ceil(N / 128), ceil(K / 128)]``.

    For weights, once; blocks of zeros have scale 0. Raises ``ValueError`` for a weight that is not finite.
    """
    rows, size = weight.shape
    padded = torch.nn.functional.pad(weight.float(), (0, -size % BLOCK, 0, -rows % BLOCK))
    blocks = padded.view(-(-rows // BLOCK), BLOCK, -(-size // BLOCK), BLOCK)
    most = blocks.abs().amax((1, 3), keepdim=True)
    expect_value("weight", bool(most.isfinite().all()), "a value that is not finite", "finite weights")
    values = torch.where(most > 0, blocks * (LARGEST / most), 0.0).clamp_(-LARGEST, LARGEST)
    q = values.view(padded.shape)[:rows, :size].contiguous().to(DTYPE)
    return q, (most / LARGEST).view(blocks.shape[0], blocks.shape[2])
