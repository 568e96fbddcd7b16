"""Test inputs of ``fused_gemm``: each activation, with and without bias, sizes beside every tile, empty K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.kernels.fused_gemm.checks import ACTIVATIONS
from octavo.kernels.matmul.inputs import make as make_product
from octavo.kernels.operation import Inputs


def make(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    bias: bool,
    activation: str,
    generator: torch.Generator,
    device: torch.device,
) -> Mapping[str, Any]:
    """``(M, K, N)``; the sums are normal with variance 1, the bias with a quarter of it."""
    product = make_product(shape, dtype, generator, device)
    shift = (torch.randn(shape[2], generator=generator) / 2).to(device, dtype) if bias else None
    return {**product, "bias": shift, "activation": activation}


def _case(shape: tuple[int, int, int], dtype: torch.dtype, bias: bool, activation: str) -> Inputs:
    return Inputs(
        f"{'x'.join(map(str, shape))} {str(dtype)[6:]}{' bias' if bias else ''} {activation}",
        lambda generator, device: make(shape, dtype, bias, activation, generator, device),
        small=shape[0] * shape[1] * shape[2] < 1 << 22,
    )


INPUTS = (
    _case((1, 1, 1), torch.bfloat16, True, "gelu"),
    _case((65, 200, 72), torch.bfloat16, True, "gelu"),
    _case((130, 40, 136), torch.float16, True, "gelu_tanh"),
    _case((33, 31, 35), torch.float16, True, "silu"),
    _case((40, 64, 264), torch.bfloat16, False, "silu"),
    _case((9, 0, 16), torch.bfloat16, True, "gelu"),
    _case((0, 8, 8), torch.bfloat16, True, "none"),
    *(_case((17, 24, 40), torch.bfloat16, bias, activation) for activation in ACTIVATIONS for bias in (False, True)),
    _case((1024, 4096, 2048), torch.bfloat16, True, "gelu"),
    _case((777, 1001, 513), torch.float16, True, "silu"),
)
