"""``fused_gemm`` in CUDA C++: ``matmul``'s tensor-core kernels with bias and activation on the accumulators.

The product alone writes 2 * M * N bytes; bias and activation apart would read and write them once more: at 8192 x 8192, 268 MB or
0.06 ms beside 0.19 ms for K = 1024. Fused, they cost arithmetic that the multiplying warps do between two tiles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.kernels.gpu.module import CudaAhead
from octavo.kernels.matmul.cuda import mma_source, run_mma, run_wgmma, takes_wgmma, wgmma_source


def fused_gemm(a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """wgmma where it can be had (``matmul.cuda.takes_wgmma``), else mma.sync."""
    if not takes_wgmma(a, b):
        return mma(a, b, bias, activation)
    out = a.new_empty((a.shape[0], b.shape[1]))
    run_wgmma(a, b, bias, out, activation)
    return out


def mma(a: Tensor, b: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """For any GPU from sm_80 on, and for any shape."""
    out = a.new_empty((a.shape[0], b.shape[1]))
    run_mma(a, b, bias, out, activation)
    return out


AHEAD = (
    CudaAhead("mma bias gelu", mma_source(torch.bfloat16, True, True, "gelu")),
    CudaAhead("mma silu any", mma_source(torch.float16, False, False, "silu")),
    CudaAhead("wgmma bias gelu", wgmma_source(torch.bfloat16, 256, True, "gelu"), architectures=(90,)),
    CudaAhead("wgmma bias silu 128", wgmma_source(torch.bfloat16, 128, True, "silu"), architectures=(90,)),
)
