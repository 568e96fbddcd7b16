"""RMSNorm in Triton: a row per program, read once, float32 inside."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.gpu.ahead import Ahead


@triton.jit
def _rms_norm(x, weight, out, num_heads, size, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < size
    values = tl.load(x + row * size + column, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(values * values, axis=0) / size + eps)
    weights = tl.load(weight + (row % num_heads) * size + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + column, (values * scale * weights).to(out.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """``x``: ``[..., N]``; ``weight``: ``[N]`` or ``[H, N]`` -> shape and dtype of ``x``."""
    out, size = torch.empty_like(x), x.shape[-1]
    num_rows, block = x.numel() // size, triton.next_power_of_2(size)
    if num_rows:
        _rms_norm[(num_rows,)](
            x, weight, out, weight.numel() // size, size, eps, BLOCK=block, num_warps=num_warps(block)
        )
    return out


def num_warps(block: int) -> int:
    """Eight elements a thread, between one warp and sixteen."""
    return min(16, max(1, block // 256))


_TYPES = {"x": "*bf16", "weight": "*bf16", "out": "*bf16", "num_heads": "i32", "size": "i32", "eps": "fp32"}
AHEAD = tuple(
    Ahead(f"{block}", _rms_norm, {**_TYPES, "BLOCK": block}, num_warps=num_warps(block), divisible=("size",))
    for block in (128, 4096)
)
