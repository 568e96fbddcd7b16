"""The operation ``K.quantize_fp8(x, group)``: schema, reference, back ends."""

from __future__ import annotations

from octavo.kernels.operation import Operation
from octavo.kernels.quantize_fp8.checks import check, meta
from octavo.kernels.quantize_fp8.reference import quantize_fp8_reference

OPERATION = Operation(
    name="quantize_fp8",
    schema="(Tensor x, int group=0) -> (Tensor, Tensor)",
    summary="x ~ scale * q with q in e4m3, a scale per row or per group of a row",
    check=check,
    meta=meta,
    reference=quantize_fp8_reference,
    backends={
        "torch": "octavo.kernels.quantize_fp8.cpu:quantize_fp8",
        "triton": "octavo.kernels.quantize_fp8.triton:quantize_fp8",
    },
    by_device={"cpu": "torch", "cuda": "triton"},
)
